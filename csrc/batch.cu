// CUDA backend of batch assembly: cuts the part images into tiles and the images into runs of rows,
// chooses the vector forms that the memory's layout allows, and launches the kernel of batch.cuh.
#include "batch.h"

#include <cuda_runtime.h>

#include "batch.cuh"
#include "layout.h"
#include "tiles.h"

namespace dsa {
namespace {

constexpr int kVectorsAThread = 6;            // of 16 bytes, of an image: enough to pay for a block's table
constexpr int64_t kMostWideBytes = 24 << 10;  // image blocks need no more shared memory than warping ones

// Bytes of the stored rows that `rows` of the image are sums of, resized along x.
int64_t wide_bytes(const BatchCall& call, int64_t rows) {
  const int64_t most = (rows - 1) * call.stored_height / call.height + 1 + call.row_taps;
  return std::min<int64_t>(most, call.stored_height) * call.width * kColours;
}

Write choose_image_write(const BatchCall& call) {
  const int64_t* stride = call.image_stride;
  const int64_t width = 16 / bytes_of(call.type);
  if (stride[3] == 1 && call.width % width == 0 &&
      aligned(call.image, call.type, {stride[0], stride[1], stride[2]})) {
    return Write::planes;
  }
  const bool last = stride[1] == 1 && stride[3] == kColours && kColours * call.width % width == 0;
  return last && aligned(call.image, call.type, {stride[0], stride[2]}) ? Write::channels_last
                                                                        : Write::strided;
}

void set_images(const BatchCall& call, BatchArguments& a) {
  a.height = call.height, a.width = call.width;
  a.row_taps = call.row_taps, a.column_taps = call.column_taps;
  a.rows = call.rows, a.columns = call.columns;
  a.wide = wide_bytes(call, 1) <= kMostWideBytes;
  a.image = call.image, a.image_write = a.wide ? choose_image_write(call) : Write::strided;
  for (int i = 0; i < 4; ++i) a.image_stride[i] = call.image_stride[i];
  const int64_t width = a.image_write == Write::strided ? 1 : 16 / bytes_of(call.type);
  const int64_t runs = std::max<int64_t>(1, kColours * call.width / width);  // of a row
  a.image_rows = static_cast<int>(std::max<int64_t>(1, kWarpThreads * kVectorsAThread / runs));
  while (a.wide && wide_bytes(call, a.image_rows) > kMostWideBytes) --a.image_rows;
  a.image_tiles = (call.height + a.image_rows - 1) / a.image_rows;
}

// Everything about the warp that does not depend on the types.
void set_warp(const BatchCall& call, BatchArguments& a) {
  WarpArguments& w = a.warp;
  w.channels = kColours, w.height = call.stored_height, w.width = call.stored_width;
  w.size = call.size, w.rows = call.parts * call.size;
  const int64_t image_stride[4] = {0, 1, int64_t{kColours} * call.stored_width, kColours};
  for (int i = 0; i < 4; ++i) w.image_stride[i] = image_stride[i];
  for (int i = 0; i < 5; ++i) w.out_stride[i] = call.dsap_stride[i];
  w.dense_image = true;
  w.out = call.dsap;
  const bool vectors = call.stored_width % 16 == 0 && aligned(call.iuv, Type::uint8, {call.iuv_stride});
  w.scan = vectors ? Scan::interleaved : Scan::strided;
  w.write = choose_write(call.dsap, call.type, call.dsap_stride, call.size, kColours);
  for (int c = 0; c < kColours; ++c) w.fill[c] = call.fill[c], w.normalise[c] = call.normalise[c];
  for (int flip = 0; flip < 2 && call.dsap; ++flip) {
    for (int part = 1; part <= kParts; ++part) {
      a.target[flip][part] = part_target(part, call.parts, call.mirror, flip != 0);
    }
  }
}

template <class Out>
int launch(const BatchCall& call, BatchArguments& a, cudaStream_t stream) {
  const int table = batch_table_bytes<Out>();
  int shared = table + (a.wide ? static_cast<int>(wide_bytes(call, a.image_rows)) : 0);
  int64_t dsap_blocks = 0;
  if (call.dsap) {
    const Tiles tiles = cut(call.batch, a.warp.rows, a.warp.size, warp_shared_bytes(0, table));
    a.warp.tile_rows = tiles.size, a.warp.tiles = tiles.count;
    shared = std::max(shared, warp_shared_bytes(a.warp.tile_rows * a.warp.size, table));
    dsap_blocks = int64_t{call.batch} * a.warp.tiles;
  }
  const int64_t blocks = dsap_blocks + int64_t{call.batch} * a.image_tiles;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  a.dsap_blocks = static_cast<int>(dsap_blocks);
  if (const int error = allow_shared(reinterpret_cast<const void*>(&batch_kernel<Out>), shared)) {
    return error;
  }
  batch_kernel<Out><<<static_cast<unsigned>(blocks), kWarpThreads, shared, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace

int assemble_cuda(const BatchCall& call, void* stream) {
  if (call.batch == 0) return cudaSuccess;
  BatchArguments a{};
  a.images_stored = call.images_stored, a.images_stride = call.images_stride, a.iuv_stride = call.iuv_stride;
  a.images = call.images, a.iuv = call.iuv, a.index = call.index, a.drawn = call.drawn;
  a.augmented_dsap = call.augmented_dsap;
  set_images(call, a);
  set_warp(call, a);
  const auto on = static_cast<cudaStream_t>(stream);
  switch (call.type) {
    case Type::uint8: return cudaErrorInvalidValue;
    case Type::float16: return launch<Half>(call, a, on);
    case Type::bfloat16: return launch<BFloat>(call, a, on);
    case Type::float32: return launch<float>(call, a, on);
  }
  return cudaErrorInvalidValue;
}

}  // namespace dsa
