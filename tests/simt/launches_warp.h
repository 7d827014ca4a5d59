// What a launch of the warp and of its gradient chooses.
#include "launches.h"

namespace dsa {

inline void choices_of(const WarpArguments& a, launches::Choices& choices) {
  const bool vectors = a.scan == Scan::planes || a.scan == Scan::interleaved;
  choices.add("scan", launches::kScans[int(a.scan)]).add("write", launches::kWrites[int(a.write)]);
  choices.add("tiles", a.tiles == 1 ? "one" : "several");
  const bool whole = !a.source || a.rows * a.size % 4 == 0;  // every image's map begins as the first does
  choices.add("source", whole ? launches::alignment(a.source) : "odd");
  choices.add("image", a.dense_image ? "dense" : "strided");
  choices.add("shared", warp_shared_bytes(a.tile_rows * a.size, 0) > 48 << 10 ? "asked" : "usual");
  choices.add("rest", vectors && a.height * a.width % 16 != 0);
}

inline void choices_of(const GradientArguments& a, launches::Choices& choices) {
  choices.add("store", a.vectors ? "vectors" : "single");
  choices.add("tiles", a.tiles == 1 ? "one" : "several");
  const bool whole = a.parts * a.size * a.size % 4 == 0;
  choices.add("source", whole ? launches::alignment(a.source) : "odd");
}

}  // namespace dsa
