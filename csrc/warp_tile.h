// What the blocks of warp_kernel and the warping blocks of batch_kernel work on: arguments, and a tile
// of part images in shared memory.
#pragma once

#include "iuv.h"
#include "number.h"

namespace dsa {

constexpr int kWarpThreads = 512;
constexpr int kChannelsALaunch = 8;  // constants per channel travel as kernel arguments

// How the threads go over the IUV maps: 16 pixels at once if the memory's layout allows it.
enum class Scan : int { planes, interleaved, strided, strided_float };
// How they write: 16 bytes at once along a channel's plane or along [S, S, C], or one element.
enum class Write : int { planes, channels_last, strided };

struct WarpArguments {
  int channels, height, width, size;
  int rows;       // of an image's part images, one below the other: parts * size
  int tile_rows;  // rows a block owns
  int tiles;      // blocks an image; block index = image * tiles + tile
  Scan scan;
  Write write;
  bool dense_image;  // its rows follow each other: pixel p lies at p * image_stride[3]

  const void* image;
  int64_t image_stride[4];
  const void* iuv;
  int64_t iuv_stride[4];
  void* out;
  int64_t out_stride[5];
  int32_t* source;  // or null

  uint8_t part_image[kParts + 1];  // of part I
  bool reverse[kParts + 1];
  float fill[kChannelsALaunch];
  Normalise normalise[kChannelsALaunch];
};

// uint8 images are converted by a table in shared memory, which saves two divisions a value.
template <class In, class Out>
constexpr bool kHasTable = sizeof(In) == 1 && sizeof(Out) > 1;

// Dynamic shared memory: the winners, the part table, the values.
constexpr int kTargets = 32;
DSA_HOST_DEVICE constexpr int warp_shared_bytes(int cells, int table_bytes) {
  return (cells + 3) / 4 * 16 + kTargets * 4 + table_bytes;
}

// The rows [first_row, first_row + rows) of an image's part images.
struct Tile {
  int size, first_row, rows;
  int* winner;  // [rows, size]: the highest pixel that hit the cell, -1 where none did
  int* target;  // [kTargets]: of part I, twice its first row in this tile, plus 1 if reversed
};

}  // namespace dsa
