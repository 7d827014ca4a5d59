// The warp's CUDA kernels; warp.cu launches them. They need nothing but these headers, so NVRTC
// compiles them at run time as well.
//
// Both have the same two phases. A block owns a tile of the result and keeps one 32-bit number for
// each of the tile's cells in shared memory. Its threads go over the input and scatter into the
// tile; after a barrier they write the tile out, each element once, in the order of memory.
//
// warp_kernel: 512 threads; the tile is a run of rows of the part images of one image.
//   Bytes: out once, 16 at a time; each I once for every tile of its image, the first time from
//   DRAM and then from L2; U, V and the image only where a pixel lies in the tile.
//   Shared memory: 4 bytes a cell, 128 of part table and, for uint8 images, 256 converted values a
//   channel. 64 images to 24 x 3 x 32 x 32 float32: 4 tiles of 6 part images, 27 KiB each.
//   Registers: at most 64, so that two blocks (1,024 threads) share a multiprocessor.
//
// gradient_kernel: 512 threads; the tile is a run of pixels of one image.
//   Bytes: the image's gradient once, 16 at a time, zeros included; the map of winners once for
//   every tile of its image; the gradient of cells that a pixel won.
//   Shared memory: 4 bytes a pixel of the tile. Registers: at most 64.
//
// The ladder of versions of warp_kernel, for 64 images of 256x128 to 24 x 3 x 32 x 32; the counts are
// those of tests/simt (its README.md has all of them, and what was rejected):
//   1. a block per part image, a pixel a thread: I is read 24 times, 107 MB again from L2;
//   2. 16 pixels a thread: requests of 14 sectors in place of 1, and U and V only where needed: 51 MB;
//   3. tiles of as many rows as keep the multiprocessors evenly busy: I is read 4 times, 8 MB;
//   4. 16-byte stores: a quarter of the requests, and several image loads of a thread under way;
//   5. values from a table: two IEEE divisions a value less, for 3 KiB of shared memory.
//
// budget warp_kernel: 64 registers (sm_75: 64), 7 wide loads, 3 wide stores, 28 KiB
// budget gradient_kernel: 64 registers (sm_75: 64), 1 wide loads, 1 wide stores, 32 KiB
#pragma once

#include "iuv.h"
#include "number.h"
#include "tile_write.h"
#include "warp_tile.h"

namespace dsa {

// The tile of this block, its winners cleared. The caller fills its table of parts, which lies behind them.
__device__ __forceinline__ Tile make_tile(const WarpArguments& a, unsigned char* shared) {
  Tile tile;
  tile.size = a.size;
  tile.first_row = blockIdx.x % a.tiles * a.tile_rows;
  tile.rows = min(a.tile_rows, a.rows - tile.first_row);
  tile.winner = reinterpret_cast<int*>(shared);
  const int quads = (tile.rows * tile.size + 3) / 4;
  tile.target = tile.winner + quads * 4;
  for (int quad = threadIdx.x; quad < quads; quad += kWarpThreads) {
    reinterpret_cast<int4*>(tile.winner)[quad] = {-1, -1, -1, -1};
  }
  return tile;
}
constexpr int kElsewhere = 1 << 24;  // no row of the part lies in the tile

template <class Coordinate>
__device__ __forceinline__ void offer(const Tile& tile, int target, Coordinate u, Coordinate v, int pixel) {
  const int row = (target >> 1) + cell_of(target & 1 ? reversed(u) : u, tile.size);
  if (row < 0 || row >= tile.rows) return;
  atomicMax(&tile.winner[row * tile.size + cell_of(v, tile.size)], pixel);
}

// Byte k of 16 and of 48; k is known when the code is compiled.
__device__ __forceinline__ uint8_t byte_of(const uint4& x, int k) {
  const uint32_t word = k < 4 ? x.x : k < 8 ? x.y : k < 12 ? x.z : x.w;
  return static_cast<uint8_t>(word >> k % 4 * 8);
}
// The same for any k.
__device__ __forceinline__ uint8_t byte_at(const uint4& x, int k) {
  const uint32_t low = k & 4 ? x.y : x.x, high = k & 4 ? x.w : x.z;
  return static_cast<uint8_t>((k & 8 ? high : low) >> k % 4 * 8);
}
__device__ __forceinline__ uint8_t byte_of(const uint4& x, const uint4& y, const uint4& z, int k) {
  return k < 16 ? byte_of(x, k) : k < 32 ? byte_of(y, k - 16) : byte_of(z, k - 32);
}

__device__ __forceinline__ bool contains(uint32_t parts, uint8_t part) {
  return part < 32 && parts >> part & 1u;
}

// Pixels of [3, H, W] planes, 16 a thread, in steps of the block. The next load is issued
// before the last is used, and U and V are read only where a part of this tile shows.
__device__ __forceinline__ void scan_planes(const WarpArguments& a, const Tile& tile, uint32_t parts,
                                            const uint8_t* iuv) {
  const uint4* i_plane = reinterpret_cast<const uint4*>(iuv);
  const uint4* u_plane = reinterpret_cast<const uint4*>(iuv + a.iuv_stride[1]);
  const uint4* v_plane = reinterpret_cast<const uint4*>(iuv + 2 * a.iuv_stride[1]);
  const int vectors = a.height * a.width / 16;
  int vector = threadIdx.x;
  uint4 next = {};
  if (vector < vectors) next = __ldg(i_plane + vector);
  for (; vector < vectors; vector += kWarpThreads) {
    const uint4 i = next;
    if (vector + kWarpThreads < vectors) next = __ldg(i_plane + vector + kWarpThreads);
    const uint32_t any = i.x | i.y | i.z | i.w;
    if (any == 0) continue;
    uint32_t ours = 0;
    if (any & 0xe0e0e0e0u) {  // an I above 31, which is no part
#pragma unroll 1
      for (int k = 0; k < 16; ++k) ours |= contains(parts, byte_at(i, k)) ? 1u << k : 0u;
    } else {
#pragma unroll
      for (int k = 0; k < 16; ++k) ours |= (parts >> byte_of(i, k) & 1u) << k;
    }
    if (!ours) continue;
    const uint4 u = __ldg(u_plane + vector);
    const uint4 v = __ldg(v_plane + vector);
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      if (ours >> k & 1u) {
        offer(tile, tile.target[byte_of(i, k)], byte_of(u, k), byte_of(v, k), vector * 16 + k);
      }
    }
  }
}

// Pixels of [H, W, 3]: 48 bytes are 16 pixels.
__device__ __forceinline__ void scan_interleaved(const WarpArguments& a, const Tile& tile, uint32_t parts,
                                                 const uint8_t* iuv) {
  const uint4* pixels = reinterpret_cast<const uint4*>(iuv);
  const int vectors = a.height * a.width / 16;
  for (int vector = threadIdx.x; vector < vectors; vector += kWarpThreads) {
    const uint4 x = __ldg(pixels + vector * 3);
    const uint4 y = __ldg(pixels + vector * 3 + 1);
    const uint4 z = __ldg(pixels + vector * 3 + 2);
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const uint8_t part = byte_of(x, y, z, 3 * k);
      if (contains(parts, part)) {
        offer(tile, tile.target[part], byte_of(x, y, z, 3 * k + 1), byte_of(x, y, z, 3 * k + 2),
              vector * 16 + k);
      }
    }
  }
}

// Pixels from `first` on, one a thread, at any strides.
template <class Coordinate>
__device__ __forceinline__ void scan_strided(const WarpArguments& a, const Tile& tile, const Coordinate* iuv,
                                             int first) {
  const int pixels = a.height * a.width;
  for (int pixel = first + threadIdx.x; pixel < pixels; pixel += kWarpThreads) {
    const Coordinate* at = iuv + pixel / a.width * a.iuv_stride[2] + pixel % a.width * a.iuv_stride[3];
    const Coordinate i = at[0];
    if (i == Coordinate(0)) continue;
    const Coordinate u = at[a.iuv_stride[1]], v = at[2 * a.iuv_stride[1]];
    offer(tile, tile.target[part_of(i, u, v)], u, v, pixel);
  }
}

__device__ __forceinline__ void scan(const WarpArguments& a, const Tile& tile, int image) {
  const uint8_t* bytes = static_cast<const uint8_t*>(a.iuv) + image * a.iuv_stride[0];
  // One bit for each part with a row in this tile, the same in every thread.
  const uint32_t parts = __ballot_sync(0xffffffffu, tile.target[threadIdx.x % kTargets] != kElsewhere);
  switch (a.scan) {
    case Scan::planes: scan_planes(a, tile, parts, bytes); break;
    case Scan::interleaved: scan_interleaved(a, tile, parts, bytes); break;
    case Scan::strided: return scan_strided(a, tile, bytes, 0);
    case Scan::strided_float:
      return scan_strided(a, tile, static_cast<const float*>(a.iuv) + image * a.iuv_stride[0], 0);
  }
  scan_strided(a, tile, bytes, a.height * a.width / 16 * 16);  // what 16 at a time leave over
}

template <class In, class Out>
__global__ void __launch_bounds__(kWarpThreads, 2) warp_kernel(const __grid_constant__ WarpArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const int image = blockIdx.x / a.tiles;
  const Tile tile = make_tile(a, shared_bytes);
  Out* table = reinterpret_cast<Out*>(tile.target + kTargets);
  if (threadIdx.x < kTargets) {
    const int part = threadIdx.x;
    const bool known = part >= 1 && part <= kParts;
    const int row = known ? a.part_image[part] * a.size - tile.first_row : 0;
    const bool here = known && row < tile.rows && row + a.size > 0;
    tile.target[part] = here ? row * 2 + (a.reverse[part] ? 1 : 0) : kElsewhere;
  }
  if constexpr (kHasTable<In, Out>) {
    for (int i = threadIdx.x; i < a.channels * 256; i += kWarpThreads) {
      table[i] = Convert<Out, In>::value(static_cast<In>(i % 256), a.normalise[i / 256]);
    }
  }
  __syncthreads();

  scan(a, tile, image);
  __syncthreads();

  const Values<In, Out> values{a, static_cast<const In*>(a.image) + image * a.image_stride[0], table};
  Out* out = static_cast<Out*>(a.out) + image * a.out_stride[0];
  switch (a.write) {
    case Write::planes: write_planes(tile, values, out); break;
    case Write::channels_last: write_channels_last(tile, values, out); break;
    case Write::strided: write_strided(tile, values, out); break;
  }
  if (a.source) write_source(a, tile, image);
}

struct GradientArguments {
  int channels, pixels, size, parts;
  int tile_pixels;  // pixels a block owns
  int tiles;        // blocks an image; block index = image * tiles + tile
  bool vectors;     // grad_image can be written 16 bytes at a time
  const void* grad;
  int64_t grad_stride[5];
  const int32_t* source;
  void* grad_image;
  int64_t image_stride;  // from image to image; the channels' planes are contiguous
  float std[kChannelsALaunch];
};

// What a pixel receives: the gradient of the cell it won, divided by std; 0 if it won none.
template <class Grad, class Image>
__device__ __forceinline__ Image gradient_of(const GradientArguments& a, const Grad* grad, int cell,
                                             int channel) {
  if (cell < 0) return from_float<Image>(0.f);
  const int row = cell / a.size;
  const int64_t offset = row / a.size * a.grad_stride[1] + channel * a.grad_stride[2] +
                         row % a.size * a.grad_stride[3] + cell % a.size * a.grad_stride[4];
  return from_float<Image>(to_float(load(grad + offset)) / a.std[channel]);
}

// Notes the cell that each pixel of the tile won, if it won one.
__device__ __forceinline__ void find_cells(const GradientArguments& a, int image, int first, int pixels,
                                           int* cell_of_pixel) {
  const int cells = a.parts * a.size * a.size;
  const int32_t* source = a.source + int64_t{image} * cells;
  int cell = threadIdx.x;
  if (reinterpret_cast<uint64_t>(source) % 16 == 0) {
    for (int four = threadIdx.x; four < cells / 4; four += kWarpThreads) {
      const int4 x = __ldg(reinterpret_cast<const int4*>(source) + four);
      const int pixel[4] = {x.x - first, x.y - first, x.z - first, x.w - first};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (pixel[k] >= 0 && pixel[k] < pixels) cell_of_pixel[pixel[k]] = four * 4 + k;
      }
    }
    cell += cells / 4 * 4;
  }
  for (; cell < cells; cell += kWarpThreads) {
    const int pixel = source[cell] - first;
    if (pixel >= 0 && pixel < pixels) cell_of_pixel[pixel] = cell;
  }
}

template <class Grad, class Image>
__global__ void __launch_bounds__(kWarpThreads, 2)
    gradient_kernel(const __grid_constant__ GradientArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  int* const cell_of_pixel = reinterpret_cast<int*>(shared_bytes);
  const int image = blockIdx.x / a.tiles;
  const int first = blockIdx.x % a.tiles * a.tile_pixels;
  const int pixels = min(a.tile_pixels, a.pixels - first);
  for (int pixel = threadIdx.x; pixel < pixels; pixel += kWarpThreads) cell_of_pixel[pixel] = -1;
  __syncthreads();

  find_cells(a, image, first, pixels, cell_of_pixel);
  __syncthreads();

  constexpr int kWidth = Vector<Image>::kWidth;
  const Grad* grad = static_cast<const Grad*>(a.grad) + image * a.grad_stride[0];
  Image* to = static_cast<Image*>(a.grad_image) + image * a.image_stride + first;
  for (int c = 0; c < a.channels; ++c, to += a.pixels) {
    if (!a.vectors) {
      for (int pixel = threadIdx.x; pixel < pixels; pixel += kWarpThreads) {
        to[pixel] = gradient_of<Grad, Image>(a, grad, cell_of_pixel[pixel], c);
      }
      continue;
    }
    for (int pixel = threadIdx.x * kWidth; pixel < pixels; pixel += kWarpThreads * kWidth) {
      int cell[kWidth];
      load_cells(cell_of_pixel + pixel, cell);
      Vector<Image> values;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) values.value[k] = gradient_of<Grad, Image>(a, grad, cell[k], c);
      *reinterpret_cast<Vector<Image>*>(to + pixel) = values;
    }
  }
}

}  // namespace dsa
