// Memory traffic of the typical warp and of its gradient.
#include <cstdlib>

#include "counts.h"
#include "warp.h"

using namespace cases;
using namespace counts;

namespace {

void count_warp(const std::string& what, int images, Type out_type, bool last, bool with_source) {
  Random random(1);
  int64_t image_stride[4], iuv_stride[4], out_stride[5];
  const int order[4] = {0, last ? 2 : 1, last ? 3 : 2, last ? 1 : 3};
  const int out_order[5] = {0, 1, last ? 3 : 2, last ? 4 : 3, last ? 2 : 4};
  strides({images, kChannels, kHeight, kWidth}, order, 0, image_stride);
  strides({images, 3, kHeight, kWidth}, order, 0, iuv_stride);
  strides({images, 24, kChannels, kSize, kSize}, out_order, 0, out_stride);
  const size_t pixels = size_t(images) * kHeight * kWidth, cells = size_t(images) * 24 * kSize * kSize;
  const Memory image(pixels * kChannels), iuv(pixels * 3), out(cells * kChannels * bytes_of(out_type));
  const Memory source(cells * 4);
  draw_all(random, Type::uint8, image);
  draw_people(random, images, kHeight, kWidth, iuv_stride, iuv.as<uint8_t>());
  const float fill[kChannels] = {};
  const dsa::Normalise normalise[kChannels] = {{true, 0.5f, 0.2f}, {true, 0.4f, 0.2f}, {true, 0.4f, 0.3f}};
  dsa::WarpImages call{};
  call.batch = images, call.channels = kChannels, call.height = kHeight, call.width = kWidth;
  call.size = kSize, call.parts = 24;
  call.image = image.begin(), call.image_type = Type::uint8, call.iuv = iuv.begin();
  call.out = out.begin(), call.out_type = out_type, call.source = source.as<int32_t>();
  call.fill = fill, call.normalise = normalise;
  std::memcpy(call.image_stride, image_stride, sizeof image_stride);
  std::memcpy(call.iuv_stride, iuv_stride, sizeof iuv_stride);
  std::memcpy(call.out_stride, out_stride, sizeof out_stride);
  for (int b = 0; b < images; ++b) {
    if (!dsa::warp_cpu(call, b, 0, 24)) std::abort();
  }
  if (!with_source) call.source = nullptr;

  Sectors least_iuv, least_image;
  for (size_t p = 0; p < pixels; ++p) {
    const int64_t at = p / (kHeight * kWidth) * iuv_stride[0] + p % (kHeight * kWidth) * iuv_stride[3];
    mark(least_iuv, iuv.begin() + at);
    if (!iuv.begin()[at]) continue;
    mark(least_iuv, iuv.begin() + at + iuv_stride[1]);
    mark(least_iuv, iuv.begin() + at + 2 * iuv_stride[1]);
  }
  for (size_t cell = 0; cell < cells; ++cell) {
    const int pixel = source.as<int32_t>()[cell];
    for (int c = 0; c < kChannels && pixel >= 0; ++c) {
      mark(least_image, image.begin() + cell / (24 * kSize * kSize) * image_stride[0] + c * image_stride[1] +
                            pixel * image_stride[3]);
    }
  }
  simt::forget_buffers();
  simt::watch("image", image.begin(), image.bytes);
  simt::watch("iuv", iuv.begin(), iuv.bytes);
  simt::watch("out", out.begin(), out.bytes);
  simt::watch("source", source.begin(), source.bytes);
  dsa::warp_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"iuv", int64_t(least_iuv.size())}, {"image", int64_t(least_image.size())}});
  if (!with_source || out_type != Type::float32) return;

  // The gradient of the same batch.
  const Memory grad_image(pixels * kChannels * 4);
  draw_all(random, Type::float32, out);
  Sectors least_grad;
  for (size_t cell = 0; cell < cells; ++cell) {
    for (int c = 0; c < kChannels && source.as<int32_t>()[cell] >= 0; ++c) {
      const size_t part = cell / (kSize * kSize), at = cell % (kSize * kSize);
      mark(least_grad, out.as<float>() + part * out_stride[1] + c * out_stride[2] + at * out_stride[4]);
    }
  }
  dsa::WarpGradient back{images, kChannels, kHeight, kWidth, kSize, 24};
  back.grad = out.begin(), back.grad_type = Type::float32;
  std::memcpy(back.grad_stride, out_stride, sizeof out_stride);
  back.source = source.as<int32_t>(), back.grad_image = grad_image.begin();
  back.image_type = Type::float32, back.normalise = normalise;
  simt::forget_buffers();
  simt::watch("grad", out.begin(), out.bytes);
  simt::watch("source", source.begin(), source.bytes);
  simt::watch("grad_image", grad_image.begin(), grad_image.bytes);
  dsa::warp_gradient_cuda(back, nullptr);
  print("gradient, float32", simt::take_counts(), {{"grad", int64_t(least_grad.size())}});
}

void count_all(int images) {
  count_warp("warp, uint8 to float32", images, Type::float32, false, false);
  count_warp("warp, uint8 to float16", images, Type::float16, false, false);
  count_warp("warp, uint8 to uint8", images, Type::uint8, false, false);
  count_warp("warp, [H,W,3] to float32 [S,S,3]", images, Type::float32, true, false);
  count_warp("warp, uint8 to float32, winners", images, Type::float32, false, true);
}

const counts::Suite kWarp("warp", count_all);

}  // namespace
