// CUDA backend of the warp: one block per (part image, band of rows, image).
//
// A block keeps the winners of its band in shared memory, scans the image's IUV map, records for
// each of its cells the highest raster index with atomicMax (order does not matter, so the result
// is deterministic), and then gathers the colours: every output element is written once, and
// neighbouring threads write neighbouring cells.
//
// Bytes: the output once; the I plane is read by each of the `parts` blocks of an image, the first
// time from DRAM and then from L2; U, V and the image only where a pixel belongs to the part.
// Shared memory: 4 bytes a cell of the band, at most kBandCells * 4 = 32 KiB, so that every
// architecture holds several blocks a multiprocessor. Registers: at most 64 (__launch_bounds__).
#include "warp.h"

#include <cuda_runtime.h>

#include <type_traits>

#include "iuv.h"

namespace dsa {
namespace {

constexpr int kThreads = 256;
constexpr int kBandCells = 8192;
constexpr int kChannelsALaunch = 8;  // constants per channel travel as kernel arguments

struct WarpArguments {
  int channels, height, width, size, parts, band_rows;
  const void* image;
  int64_t image_stride[4];
  const void* iuv;
  int64_t iuv_stride[4];
  void* out;
  int64_t out_stride[5];
  int32_t* source;
  uint8_t part_image[kParts + 1];  // of part I; 255 for background
  bool reverse[kParts + 1];
  float fill[kChannelsALaunch];
  Normalise normalise[kChannelsALaunch];
};

template <class In, class Out, class Coordinate>
__global__ void __launch_bounds__(kThreads, 4) warp_kernel(const __grid_constant__ WarpArguments a) {
  __shared__ int winner[kBandCells];
  const int part_image = blockIdx.x;
  const int first_row = blockIdx.y * a.band_rows;
  const int rows = a.size - first_row < a.band_rows ? a.size - first_row : a.band_rows;
  const int cells = rows * a.size;
  for (int cell = threadIdx.x; cell < cells; cell += kThreads) winner[cell] = -1;
  __syncthreads();

  const Coordinate* iuv = static_cast<const Coordinate*>(a.iuv) + blockIdx.z * a.iuv_stride[0];
  const int pixels = a.height * a.width;
  for (int pixel = threadIdx.x; pixel < pixels; pixel += kThreads) {
    const Coordinate* at =
        iuv + pixel / a.width * a.iuv_stride[2] + pixel % a.width * a.iuv_stride[3];
    const Coordinate i = at[0];
    if (i == Coordinate(0)) continue;
    Coordinate u = at[a.iuv_stride[1]];
    const Coordinate v = at[2 * a.iuv_stride[1]];
    const int part = part_of(i, u, v);
    if (a.part_image[part] != part_image) continue;
    if (a.reverse[part]) u = reversed(u);
    const int row = cell_of(u, a.size) - first_row;
    if (row < 0 || row >= rows) continue;
    atomicMax(&winner[row * a.size + cell_of(v, a.size)], pixel);
  }
  __syncthreads();

  const In* image = static_cast<const In*>(a.image) + blockIdx.z * a.image_stride[0];
  Out* out = static_cast<Out*>(a.out) + blockIdx.z * a.out_stride[0] + part_image * a.out_stride[1];
  for (int cell = threadIdx.x; cell < cells; cell += kThreads) {
    const int pixel = winner[cell];
    const int row = first_row + cell / a.size;
    const int column = cell % a.size;
    Out* to = out + row * a.out_stride[3] + column * a.out_stride[4];
    const In* from = image;
    if (pixel >= 0) {
      from += pixel / a.width * a.image_stride[2] + pixel % a.width * a.image_stride[3];
    }
    for (int c = 0; c < a.channels; ++c) {
      to[c * a.out_stride[2]] =
          pixel < 0 ? from_float<Out>(a.fill[c])
                    : Convert<Out, In>::value(from[c * a.image_stride[1]], a.normalise[c]);
    }
    if (a.source) {
      const int64_t map = static_cast<int64_t>(blockIdx.z) * a.parts + part_image;
      a.source[(map * a.size + row) * a.size + column] = pixel;
    }
  }
}

struct GradientArguments {
  int channels, height, width, size, parts;
  int64_t cells;  // in all: batch * parts * size * size
  const void* grad;
  int64_t grad_stride[5];
  const int32_t* source;
  void* grad_image;
  int64_t image_batch_stride;
  float std[kChannelsALaunch];
};

template <class Grad, class Image>
__global__ void __launch_bounds__(kThreads) gradient_kernel(const __grid_constant__ GradientArguments a) {
  const int64_t cell = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (cell >= a.cells) return;
  const int pixel = a.source[cell];
  if (pixel < 0 || pixel >= a.height * a.width) return;
  const int column = cell % a.size;
  const int row = cell / a.size % a.size;
  const int64_t map = cell / a.size / a.size;
  const Grad* from = static_cast<const Grad*>(a.grad) + map / a.parts * a.grad_stride[0] +
                     map % a.parts * a.grad_stride[1] + row * a.grad_stride[3] +
                     column * a.grad_stride[4];
  Image* to = static_cast<Image*>(a.grad_image) + map / a.parts * a.image_batch_stride + pixel;
  for (int c = 0; c < a.channels; ++c) {
    to[static_cast<int64_t>(c) * a.height * a.width] =
        from_float<Image>(to_float(from[c * a.grad_stride[2]]) / a.std[c]);
  }
}

template <class T>
struct Of {
  using type = T;
};

// Calls `f` with the C++ type that stands for a run-time type.
template <class F>
void with_type(Type type, F f) {
  switch (type) {
    case Type::uint8: return f(Of<uint8_t>{});
    case Type::float16: return f(Of<Half>{});
    case Type::bfloat16: return f(Of<BFloat>{});
    case Type::float32: return f(Of<float>{});
  }
}

size_t bytes_of(Type type) { return type == Type::uint8 ? 1 : type == Type::float32 ? 4 : 2; }

const void* advance(const void* pointer, int64_t elements, Type type) {
  return static_cast<const char*>(pointer) + elements * static_cast<int64_t>(bytes_of(type));
}
void* advance(void* pointer, int64_t elements, Type type) {
  return static_cast<char*>(pointer) + elements * static_cast<int64_t>(bytes_of(type));
}

template <class In, class Out, class Coordinate>
void launch_warp(const WarpArguments& a, int batch, cudaStream_t stream) {
  const dim3 grid(a.parts, (a.size + a.band_rows - 1) / a.band_rows, batch);
  warp_kernel<In, Out, Coordinate><<<grid, kThreads, 0, stream>>>(a);
}

}  // namespace

int warp_cuda(const WarpImages& call, void* stream) {
  WarpArguments a{};
  a.height = call.height, a.width = call.width, a.size = call.size, a.parts = call.parts;
  a.band_rows = kBandCells / call.size < call.size ? kBandCells / call.size : call.size;
  a.iuv = call.iuv;
  for (int i = 0; i < 4; ++i) a.image_stride[i] = call.image_stride[i];
  for (int i = 0; i < 4; ++i) a.iuv_stride[i] = call.iuv_stride[i];
  for (int i = 0; i < 5; ++i) a.out_stride[i] = call.out_stride[i];
  a.part_image[0] = 255;
  for (int part = 1; part <= kParts; ++part) {
    a.part_image[part] = static_cast<uint8_t>(merged_index(part, call.parts));
    a.reverse[part] = call.mirror && kPart[part - 1].flip_u && second_of_pair(part);
  }
  // More than kChannelsALaunch channels, or more images than a grid is deep: several launches.
  constexpr int kGridDepth = 65535;
  for (int image = 0; image < call.batch; image += kGridDepth) {
    const int batch = call.batch - image < kGridDepth ? call.batch - image : kGridDepth;
    const bool float_iuv = call.iuv_is_float;
    a.iuv = advance(call.iuv, image * call.iuv_stride[0], float_iuv ? Type::float32 : Type::uint8);
    for (int channel = 0; channel < call.channels; channel += kChannelsALaunch) {
      const int left = call.channels - channel;
      a.channels = left < kChannelsALaunch ? left : kChannelsALaunch;
      a.image = advance(call.image, image * call.image_stride[0] + channel * call.image_stride[1],
                        call.image_type);
      a.out = advance(call.out, image * call.out_stride[0] + channel * call.out_stride[2],
                      call.out_type);
      a.source = channel || !call.source ? nullptr
                 : call.source + static_cast<int64_t>(image) * call.parts * call.size * call.size;
      for (int c = 0; c < a.channels; ++c) {
        a.fill[c] = call.fill[channel + c];
        a.normalise[c] = call.normalise[channel + c];
      }
      with_type(call.image_type, [&](auto in) {
        with_type(call.out_type, [&](auto out) {
          using In = typename decltype(in)::type;
          using Out = typename decltype(out)::type;
          if constexpr (!std::is_same_v<Out, uint8_t> || std::is_same_v<In, uint8_t>) {
            float_iuv ? launch_warp<In, Out, float>(a, batch, static_cast<cudaStream_t>(stream))
                      : launch_warp<In, Out, uint8_t>(a, batch, static_cast<cudaStream_t>(stream));
          }
        });
      });
    }
  }
  return cudaGetLastError();
}

int warp_gradient_cuda(const WarpGradient& call, void* stream) {
  GradientArguments a{};
  a.height = call.height, a.width = call.width, a.size = call.size, a.parts = call.parts;
  a.cells = static_cast<int64_t>(call.batch) * call.parts * call.size * call.size;
  a.source = call.source;
  a.image_batch_stride = static_cast<int64_t>(call.channels) * call.height * call.width;
  for (int i = 0; i < 5; ++i) a.grad_stride[i] = call.grad_stride[i];
  for (int channel = 0; channel < call.channels; channel += kChannelsALaunch) {
    const int left = call.channels - channel;
    a.channels = left < kChannelsALaunch ? left : kChannelsALaunch;
    a.grad = advance(call.grad, channel * call.grad_stride[2], call.grad_type);
    a.grad_image = advance(call.grad_image,
                           static_cast<int64_t>(channel) * call.height * call.width,
                           call.image_type);
    for (int c = 0; c < a.channels; ++c) a.std[c] = call.normalise[channel + c].std;
    const auto blocks = static_cast<unsigned>((a.cells + kThreads - 1) / kThreads);
    with_type(call.grad_type, [&](auto grad) {
      with_type(call.image_type, [&](auto image) {
        using Grad = typename decltype(grad)::type;
        using Image = typename decltype(image)::type;
        if constexpr (!std::is_same_v<Grad, uint8_t> && !std::is_same_v<Image, uint8_t>) {
          gradient_kernel<Grad, Image>
              <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
        }
      });
    });
  }
  return cudaGetLastError();
}

}  // namespace dsa
