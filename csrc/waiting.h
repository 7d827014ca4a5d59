// What a warp puts off until it has one for each lane, as one takes it as long as 32: device code.
#pragma once

#include "number.h"

namespace dsa {

// Computed here once, and not again wherever it is used.
__device__ __forceinline__ uint32_t once(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

constexpr int kWaitingSlots = 64;  // a warp's: 32 may come while 31 wait

// All lanes of a warp call all of this together, and hold the same numbers.
struct Waiting {
  int* slots;                 // of shared memory, kWaitingSlots for each warp of the block
  uint32_t below;             // the lanes before this one
  uint32_t begin, full, end;  // this warp's slots in use; a lane has one each at `full`

  __device__ __forceinline__ explicit Waiting(int* slots_)
      : slots(slots_), below(once((1u << threadIdx.x % 32) - 1)) {
    begin = threadIdx.x / 32 * kWaitingSlots;
    full = once(begin + 32), end = begin;
  }
  __device__ __forceinline__ bool is_full() const { return end >= full; }

  // Puts off one of each of the `lanes` that have one; `mine`: this lane is among them. Not if it is full.
  __device__ __forceinline__ void put(uint32_t lanes, bool mine, int what) {
    if (mine) slots[end + __popc(lanes & below)] = what;
    end += __popc(lanes);
  }

  // Takes the last that wait, at most 32: the lane's own, -1 if there is none for it.
  __device__ __forceinline__ int take() {
    const uint32_t lane = threadIdx.x % 32, some = is_full() ? 32 : end - begin;
    end -= some;
    __syncwarp();
    const int own = lane < some ? slots[end + lane] : -1;
    __syncwarp();
    return own;
  }
};

}  // namespace dsa
