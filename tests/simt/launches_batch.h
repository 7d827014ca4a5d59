// What a launch of batch assembly chooses.
#include "launches.h"

namespace dsa {

inline void choices_of(const BatchArguments& a, launches::Choices& choices) {
  const bool warps = a.dsap_blocks > 0;
  choices.add("scan", warps ? launches::kScans[int(a.warp.scan)] : "none");
  choices.add("write", warps ? launches::kWrites[int(a.warp.write)] : "none");
  choices.add("tiles", !warps ? "none" : a.warp.tiles == 1 ? "one" : "several");
  choices.add("image", launches::kWrites[int(a.image_write)]).add("wide", a.wide);
  choices.add("drawn", a.drawn != nullptr).add("augmented", a.augmented_dsap);
}

}  // namespace dsa
