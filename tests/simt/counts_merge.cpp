// Memory traffic of the typical merge and of its gradient.
#include "counts.h"
#include "merge.h"

using namespace cases;
using namespace counts;

namespace {

// The second merge of the DSAG-Stream in its layout: 13 x 128 channels of 8 x 8 pixels.
void count_merge(const std::string& what, int images, Type type, bool residual, bool relu, bool backward) {
  Random random(2);
  const dsa::MergeTable table = dsa::merge_table(true);
  dsa::MergeCall call{table, int64_t{images} * 64, 128, type};
  const size_t element = call.inner * bytes_of(type) * call.batch;
  const Memory features(element * table.parts), shortcut(element * table.parts);
  const Memory merged(element * table.groups), parts(element * table.parts);
  for (const Memory* memory : {&features, &shortcut, &merged}) draw_all(random, type, *memory);
  call.features = features.begin(), call.residual = residual ? shortcut.begin() : nullptr;
  call.relu = relu, call.merged = merged.begin();
  call.out = backward ? parts.begin() : merged.begin();
  if (backward && !relu) call.features = call.residual = nullptr;
  simt::forget_buffers();
  simt::watch("features", features.begin(), features.bytes);
  simt::watch("residual", shortcut.begin(), shortcut.bytes);
  simt::watch(backward ? "grad" : "out", merged.begin(), merged.bytes);
  simt::watch("grad of parts", parts.begin(), parts.bytes);
  backward ? dsa::expand_cuda(call, nullptr) : dsa::merge_cuda(call, nullptr);
  print(what, simt::take_counts(), {});
}

void count_all(int images) {
  count_merge("merge, float32", images, Type::float32, false, false, false);
  count_merge("merge, float32, residual, relu", images, Type::float32, true, true, false);
  count_merge("merge, bfloat16, residual, relu", images, Type::bfloat16, true, true, false);
  count_merge("expand, float32", images, Type::float32, false, false, true);
  count_merge("expand, float32, residual, relu", images, Type::float32, true, true, true);
}

const counts::Suite kMerge("merge", count_all);

}  // namespace
