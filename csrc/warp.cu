// CUDA backend of the warp: cuts a batch into tiles, chooses the vector forms that the memory's
// layout allows, and launches the kernels of warp.cuh.
#include "warp.h"

#include <cuda_runtime.h>

#include <type_traits>

#include "layout.h"
#include "tiles.h"
#include "warp.cuh"

namespace dsa {
namespace {

Scan choose_scan(const WarpImages& call) {
  const int64_t* stride = call.iuv_stride;
  if (call.iuv_is_float) return Scan::strided_float;
  if (stride[1] == 1 && stride[3] == 3 && stride[2] == int64_t{3} * call.width &&
      aligned(call.iuv, Type::uint8, {stride[0]})) {
    return Scan::interleaved;
  }
  const bool dense = stride[3] == 1 && stride[2] == call.width;
  return dense && aligned(call.iuv, Type::uint8, {stride[0], stride[1]}) ? Scan::planes : Scan::strided;
}

// Whether the pixels of a channel lie within 32 bits of its first, which vector writes rely on.
bool is_near(const WarpImages& call) {
  const int64_t last = (call.height - 1) * call.image_stride[2] + (call.width - 1) * call.image_stride[3];
  return last < int64_t{1} << 31;
}

template <class In, class Out>
int launch_warp(WarpArguments& a, int images, cudaStream_t stream) {
  const int table = kHasTable<In, Out> ? a.channels * kTableRow * static_cast<int>(sizeof(Out)) : 0;
  const Tiles tiles = cut(images, a.rows, a.size, warp_shared_bytes(0, table));
  a.tile_rows = tiles.size, a.tiles = tiles.count;
  const int shared = warp_shared_bytes(a.tile_rows * a.size, table);
  const int64_t blocks = int64_t{images} * a.tiles;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  if (const int error = allow_shared(reinterpret_cast<const void*>(&warp_kernel<In, Out>), shared)) {
    return error;
  }
  warp_kernel<In, Out><<<static_cast<unsigned>(blocks), kWarpThreads, shared, stream>>>(a);
  return cudaGetLastError();
}

template <class Grad, class Image>
int launch_gradient(GradientArguments& a, int images, cudaStream_t stream) {
  const Tiles tiles = cut(images, a.pixels, 1, 0);
  a.tile_pixels = tiles.size, a.tiles = tiles.count;
  const int shared = a.tile_pixels * static_cast<int>(sizeof(int));
  const int64_t blocks = int64_t{images} * a.tiles;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  if (const int error = allow_shared(reinterpret_cast<const void*>(&gradient_kernel<Grad, Image>), shared)) {
    return error;
  }
  gradient_kernel<Grad, Image><<<static_cast<unsigned>(blocks), kWarpThreads, shared, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace

int warp_cuda(const WarpImages& call, void* stream) {
  WarpArguments a{};
  a.height = call.height, a.width = call.width, a.size = call.size;
  a.rows = call.parts * call.size;
  a.scan = choose_scan(call);
  a.write = choose_write(call.out, call.out_type, call.out_stride, call.size, call.channels);
  a.dense_image = call.image_stride[2] == call.width * call.image_stride[3];
  if (!is_near(call)) a.write = Write::strided;
  a.iuv = call.iuv;
  for (int i = 0; i < 4; ++i) a.image_stride[i] = call.image_stride[i];
  for (int i = 0; i < 4; ++i) a.iuv_stride[i] = call.iuv_stride[i];
  for (int i = 0; i < 5; ++i) a.out_stride[i] = call.out_stride[i];
  for (int part = 1; part <= kParts; ++part) {
    const PartTarget target = part_target(part, call.parts, call.mirror, false);
    a.part_image[part] = target.image, a.reverse[part] = target.reverse_u;
  }
  for (int channel = 0; channel < call.channels; channel += kChannelsALaunch) {
    const int left = call.channels - channel;
    a.channels = left < kChannelsALaunch ? left : kChannelsALaunch;
    a.image = advance(call.image, channel * call.image_stride[1], call.image_type);
    a.out = advance(call.out, channel * call.out_stride[2], call.out_type);
    a.source = channel ? nullptr : call.source;
    for (int c = 0; c < a.channels; ++c) {
      a.fill[c] = call.fill[channel + c];
      a.normalise[c] = call.normalise[channel + c];
    }
    const int error = with_type(call.image_type, [&](auto in) {
      return with_type(call.out_type, [&](auto out) -> int {
        using In = typename decltype(in)::type;
        using Out = typename decltype(out)::type;
        if constexpr (std::is_same_v<Out, uint8_t> && !std::is_same_v<In, uint8_t>) {
          return cudaErrorInvalidValue;
        } else {
          return launch_warp<In, Out>(a, call.batch, static_cast<cudaStream_t>(stream));
        }
      });
    });
    if (error) return error;
  }
  return cudaSuccess;
}

int warp_gradient_cuda(const WarpGradient& call, void* stream) {
  GradientArguments a{};
  a.pixels = call.height * call.width, a.size = call.size, a.parts = call.parts;
  a.source = call.source;
  a.image_stride = static_cast<int64_t>(call.channels) * a.pixels;
  const int64_t width = 16 / bytes_of(call.image_type);
  a.vectors = a.pixels % width == 0 && aligned(call.grad_image, call.image_type, {0});
  for (int i = 0; i < 5; ++i) a.grad_stride[i] = call.grad_stride[i];
  for (int channel = 0; channel < call.channels; channel += kChannelsALaunch) {
    const int left = call.channels - channel;
    a.channels = left < kChannelsALaunch ? left : kChannelsALaunch;
    a.grad = advance(call.grad, channel * call.grad_stride[2], call.grad_type);
    a.grad_image = advance(call.grad_image, static_cast<int64_t>(channel) * a.pixels, call.image_type);
    for (int c = 0; c < a.channels; ++c) a.std[c] = call.normalise[channel + c].std;
    const int error = with_type(call.grad_type, [&](auto grad) {
      return with_type(call.image_type, [&](auto image) -> int {
        using Grad = typename decltype(grad)::type;
        using Image = typename decltype(image)::type;
        if constexpr (std::is_same_v<Grad, uint8_t> || std::is_same_v<Image, uint8_t>) {
          return cudaErrorInvalidValue;
        } else {
          return launch_gradient<Grad, Image>(a, call.batch, static_cast<cudaStream_t>(stream));
        }
      });
    });
    if (error) return error;
  }
  return cudaSuccess;
}

}  // namespace dsa
