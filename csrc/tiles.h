// How a batch is cut into tiles of shared memory, one a block, for CUDA backends. Host code.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace dsa {

constexpr int64_t kMostBlocks = 0x7fffffff;  // along a grid's x

struct Device {
  int multiprocessors = 1, shared_bytes = 48 << 10;  // the most a block may have
};
inline Device current_device() {
  int index = 0;
  Device device;
  if (cudaGetDevice(&index) == cudaSuccess) {
    cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index);
    cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  }
  return device;
}

// A kernel must ask for more than 48 KiB of shared memory. It always asks for the most there is: the
// setting is the process's, and host threads that asked for less would undo each other's. Returns a
// cudaError_t.
inline int allow_shared(const void* kernel, int bytes) {
  if (bytes <= 48 << 10) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              current_device().shared_bytes);
}

struct Tiles {
  int size;   // units a tile; the last may have fewer
  int count;  // tiles an image
};

// Cuts the `units` of each image, each of `cells` 32-bit cells, into tiles. Two tiles, with `extra` bytes
// each, fit into a multiprocessor's shared memory (one, if that is less than 100 KiB). Every tile reads its
// image's input again, so there are as few as keep the multiprocessors busy nine tenths of the time, with
// more than one block on most; for small batches, as evenly busy as possible. Tiles start at multiples of
// 16 cells, so that vectors never straddle two.
inline Tiles cut(int64_t images, int units, int cells, int extra) {
  const Device device = current_device();
  const int shared = std::max(48 << 10, device.shared_bytes / 2 - 1024) - extra;
  const int step = 16 / std::gcd(cells, 16);
  const int most = std::max(step, shared / 4 / cells / step * step);
  Tiles best{};
  double best_balance = 0;
  for (int count = (units + most - 1) / most; count <= 64 || !best.size; ++count) {
    const int size = std::min(most, ((units + count - 1) / count + step - 1) / step * step);
    const int64_t blocks = images * ((units + size - 1) / size);
    const int64_t rounds = (blocks + device.multiprocessors - 1) / device.multiprocessors;
    const double balance = double(images) * units / (double(rounds) * size * device.multiprocessors);
    const bool good = balance >= 0.9 && 2 * blocks >= 3 * device.multiprocessors;
    if (good || balance > best_balance) best = {size, static_cast<int>(blocks / images)};
    if (good) break;
    best_balance = std::max(best_balance, balance);
    if (size <= step) break;
  }
  return best;
}

}  // namespace dsa
