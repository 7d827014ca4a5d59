// What the blocks of warp_kernel and the warping blocks of batch_kernel work on: arguments, and a tile
// of part images in shared memory.
#pragma once

#include "iuv.h"
#include "number.h"
#include "waiting.h"

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

// uint8 images are converted by a table in shared memory, which saves two divisions a value: a row for each
// channel, with the values of 0..255, the fill for cells that are empty, and what aligns rows to 16 bytes.
template <class In, class Out>
constexpr bool kHasTable = sizeof(In) == 1 && sizeof(Out) > 1;
constexpr int kEmpty = 256, kTableRow = 264;

// Dynamic shared memory: the targets of parts, what waits, the winners, the table.
constexpr int kTargets = 32;
constexpr int kWarpWaiting = kWarpThreads / 32 * kWaitingSlots;
DSA_HOST_DEVICE constexpr int warp_shared_bytes(int cells, int table_bytes) {
  return (kTargets + kWarpWaiting) * 4 + (cells + 3) / 4 * 16 + table_bytes;
}

// Where a part goes in a tile: in the upper half its first row there, in the lower two bytes what V and U are
// turned over by, 0 or 255.
DSA_HOST_DEVICE constexpr int target_of(int row, bool turn_u, bool turn_v) {
  return row * 65536 + (turn_v ? 0xff00 : 0) + (turn_u ? 0xff : 0);
}
constexpr int kElsewhere = 1 << 30;  // no row of the part lies in the tile

// The rows [first_row, first_row + rows) of an image's part images.
struct Tile {
  int size, first_row, rows;
  int* target;   // [kTargets]: of part I
  int* waiting;  // [kWarpWaiting]
  int* winner;   // [rows, size]: the highest pixel that hit the cell, -1 where none did
};

}  // namespace dsa
