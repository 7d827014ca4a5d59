// The draws of an augmentation, on the CPU whatever the device of the batch.
#include "../augment.h"
#include "tensors.h"

namespace dsa {
namespace {

Tensor draw_augmentations(const Tensor& index, const Tensor& repeat, int64_t seed, int64_t epoch,
                          int64_t height, int64_t width, int64_t pad, double flip, double erase,
                          double drop_person, double drop_part) {
  STD_TORCH_CHECK(index.dim() == 1 && index.is_contiguous() && index.scalar_type() == ScalarType::Long &&
                      repeat.dim() == 1 && repeat.size(0) == index.size(0) && repeat.is_contiguous() &&
                      repeat.scalar_type() == ScalarType::Long,
                  "index and repeat must be contiguous int64 [B]");
  const AugmentSettings settings{static_cast<int>(height),
                                 static_cast<int>(width),
                                 static_cast<int>(pad),
                                 flip,
                                 erase,
                                 drop_person,
                                 drop_part};
  Tensor out = torch::stable::new_empty(index, {index.size(0), 8}, std::make_optional(ScalarType::Int));
  auto* drawn = static_cast<Augmentation*>(out.mutable_data_ptr());
  const auto* image = static_cast<const int64_t*>(index.const_data_ptr());
  const auto* times = static_cast<const int64_t*>(repeat.const_data_ptr());
  for (int64_t i = 0; i < index.size(0); ++i) {
    STD_TORCH_CHECK(image[i] >= 0 && image[i] <= UINT32_MAX && times[i] >= 0 && times[i] <= UINT32_MAX,
                    "index and repeat must be 0..2^32 - 1, but sample ", i, " has ", image[i], " and ",
                    times[i]);
    drawn[i] = draw_augmentation(settings, static_cast<uint64_t>(seed), static_cast<uint32_t>(epoch),
                                 static_cast<uint32_t>(image[i]), static_cast<uint32_t>(times[i]));
  }
  return out;
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) {
  m.impl("draw_augmentation", TORCH_BOX(&dsa::draw_augmentations));
}
