// The kernel of the ranking: a block per query. The block puts the query's positives in order in
// shared memory, streams the query's row of distances once, places each distance among the
// positives by a binary search and counts the places in a histogram; junk is taken off again, and
// the histogram's running sums are the ranks. Most distances lie beyond the last positive and are passed
// over. The others wait until a warp has one for each lane, as a search takes 32 lanes as long as one.
//
// Why this shape: the row is by far the most that has to be read, so it is read once, 16 bytes a
// thread where it is aligned (rows of an odd length begin anywhere: the few images before and
// after the aligned ones are read singly). A query has some 20 positives in the usual data sets,
// so putting them in order and summing by counting, every thread over all of them, is a few dozen
// steps without a barrier. More members than kMembers are taken in turns. Each turn counts the
// whole gallery, so its ranks do not depend on the other turns; it also places the members of all
// turns among its positives, which tells where in the query's row of ranks they belong.
//
// Bytes: the row once a turn (the first time from DRAM, then from L2), some 40 a member of the
// query, 8 a rank written. Shared memory: 32 (float32) or 40 (float64) bytes a thread, 8 or 10 KiB.
// Registers: at most 40, so 6 blocks a multiprocessor (on Turing 52, and 4 blocks, which is all its
// threads), each with 4 KiB of loads in flight.
//
// budget rank_kernel: 40 registers (sm_75: 64), 1 wide loads, 0 wide stores, 8 KiB
#pragma once

#include "number.h"
#include "waiting.h"

namespace dsa {

constexpr int kRankThreads = 256;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kRankBlocks = 4;  // a multiprocessor; Turing's has 1,024 threads
#else
constexpr int kRankBlocks = 6;
#endif
// Members of a turn, a thread each; one fewer than threads, as a search over 256 slots needs an empty one.
constexpr int kMembers = kRankThreads - 1;

template <class T>
struct RankArguments {
  int64_t gallery;              // images, fewer than 2^30
  const T* distances;           // [queries, gallery]
  int64_t row_stride;           // elements
  const int64_t* members;       // [gallery]
  const int64_t* first;         // [queries]
  const int64_t* count;         // [queries]
  const int64_t* query_cams;    // [queries]
  const int64_t* gallery_cams;  // [gallery]
  int64_t most;                 // columns of ranks
  int64_t* ranks;               // [queries, most]
  int64_t* found;               // [queries]
  T infinity;
};

// One turn's shared memory.
template <class T>
struct RankShared {
  T* given_distance;  // [256] of the turn's members, as they come
  T* distance;        // [256] of the positives in order, then infinity
  int* given_index;   // [256] gallery index, -1 unless the member is a positive
  int* index;         // [256] of the positives in order
  int* histogram;     // [256] of kept gallery images
  int* ahead;         // [256] of the query's positives, of all turns
  int* waiting;       // [8, kWaitingSlots] gallery indices
  int* size;          // how many positives: a slot of given_index that no member needs

  static constexpr int kBytes = kRankThreads * (2 * sizeof(T) + 6 * sizeof(int));

  __device__ explicit RankShared(unsigned char* bytes)
      : given_distance(reinterpret_cast<T*>(bytes)),
        distance(given_distance + kRankThreads),
        given_index(reinterpret_cast<int*>(distance + kRankThreads)),
        index(given_index + kRankThreads),
        histogram(index + kRankThreads),
        ahead(histogram + kRankThreads),
        waiting(ahead + kRankThreads),
        size(given_index + kMembers) {}
};

// How many of the positives stand before image `index` at `distance`, or are it. 2 * half is a
// power of two above the number of positives.
template <class T>
__device__ __forceinline__ int place_of(const RankShared<T>& shared, uint32_t half, T distance, int index) {
  uint32_t place = 0;
  for (uint32_t step = half; step; step >>= 1) {
    const uint32_t next = place + step;
    place = distance <= shared.distance[next - 1] ? place : next;
  }
  if (shared.distance[place] != distance) return place;
  place = 0;  // at the same distance as one or more positives: their order is by index
  for (uint32_t step = half; step; step >>= 1) {
    const uint32_t next = place + step;
    const T other = shared.distance[next - 1];
    if (other < distance || (other == distance && shared.index[next - 1] <= index)) place = next;
  }
  return place;
}

template <class T>
__device__ __forceinline__ void count_image(const RankShared<T>& shared, int size, int half, T distance,
                                            int index) {
  const int place = place_of(shared, half, distance, index);
  if (place < size) {
    atomicAdd(&shared.histogram[place], 1);
  }
}

template <class T>
__device__ __forceinline__ void count_row(const RankShared<T>& shared, int size, int half, const T* row,
                                          int gallery) {
  constexpr int kWidth = Vector<T>::kWidth;
  constexpr int kTogether = 16 / sizeof(T);  // vectors under way: as many as the registers hold
  const int thread = threadIdx.x, lane = threadIdx.x % 32;
  const int past = static_cast<int>(reinterpret_cast<uint64_t>(row) % 16 / sizeof(T));
  const int head = past == 0 ? 0 : kWidth - past < gallery ? kWidth - past : gallery;
  const int vectors = (gallery - head) / kWidth;
  const T last = shared.distance[size > 0 ? size - 1 : 0];  // of the positives: images beyond count for none
  Waiting waiting(shared.waiting);
  const auto place = [&] {  // those that waited; they were read just now, and are found in a cache
    const int own = waiting.take();
    if (own >= 0) count_image(shared, size, half, row[own], own);
  };
  // A bit of `mine` says whether an image may stand before a positive: kWidth for those from `image` on, as
  // many for those that the block's next vectors hold, and so on.
  const auto add = [&](uint32_t mine, int image) {
    while (const uint32_t lanes = __ballot_sync(0xffffffffu, mine != 0)) {
      const uint32_t bit = __ffs(static_cast<int>(mine)) - 1;
      waiting.put(lanes, mine != 0, image + bit + bit / kWidth * (kRankThreads - 1) * kWidth);
      mine &= mine - 1;
      if (waiting.is_full()) place();
    }
  };
  int image = head + thread * kWidth;
  // `left` is the same for all lanes of a warp, as they vote.
  for (int left = vectors - thread + lane; left > 0; left -= kTogether * kRankThreads) {
    const Vector<T>* at = reinterpret_cast<const Vector<T>*>(row + image);
    Vector<T> vector[kTogether];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      if (lane + j * kRankThreads < left) vector[j] = at[j * kRankThreads];
    }
    uint32_t mine = 0;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      uint32_t some = 0;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) some |= vector[j].value[k] <= last ? 1u << (j * kWidth + k) : 0u;
      if (lane + j * kRankThreads < left) mine |= some;  // else it was not loaded
    }
    add(mine, image);
    image += kTogether * kRankThreads * kWidth;
  }
  const int single = gallery - vectors * kWidth;  // before and after the aligned ones
  const int index = thread < head ? thread : thread + vectors * kWidth;
  add(thread < single && row[index] <= last, index);
  place();
}

// The distance that a positive is placed by: a NaN, which has no order, counts as infinite.
template <class T>
__device__ __forceinline__ T without_nan(T distance, T infinity) {
  return distance == distance ? distance : infinity;
}

template <class T>
__global__ void __launch_bounds__(kRankThreads, kRankBlocks)
    rank_kernel(const __grid_constant__ RankArguments<T> a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const RankShared<T> shared(shared_bytes);
  const int64_t query = blockIdx.x;
  const T* row = a.distances + query * a.row_stride;
  const int64_t* members = a.members + a.first[query];
  const int count = static_cast<int>(a.count[query]);
  const int gallery = static_cast<int>(a.gallery);
  const int64_t camera = a.query_cams[query];
  int64_t* ranks = a.ranks + query * a.most;
  const int thread = threadIdx.x;
  int found = 0;    // positives of the turns so far
  int written = 0;  // columns of ranks that are done

  for (int begin = 0; begin < count; begin += kMembers) {
    const int turn = count - begin < kMembers ? count - begin : kMembers;
    T own = a.infinity;
    int own_index = -1;
    if (thread < turn) {
      const int64_t member = members[begin + thread];
      if (member >= 0 && member < gallery && a.gallery_cams[member] != camera) {
        own_index = static_cast<int>(member);
        own = without_nan(row[member], a.infinity);
      }
    }
    shared.given_distance[thread] = own;
    shared.given_index[thread] = own_index;
    shared.distance[thread] = a.infinity;
    shared.index[thread] = gallery;
    __syncthreads();

    shared.histogram[thread] = 0;  // the turn before has read them
    shared.ahead[thread] = 0;
    if (thread < turn) {        // few warps have a member
      int size = 0, place = 0;  // positives of the turn, and those of them before this thread's
      for (int other = 0; other < turn; ++other) {
        if (shared.given_index[other] < 0) continue;
        const T distance = shared.given_distance[other];
        ++size;
        place += distance < own || (distance == own && shared.given_index[other] < own_index);
      }
      if (own_index >= 0) {
        shared.distance[place] = own;
        shared.index[place] = own_index;
      }
      if (thread == 0) *shared.size = size;
    }
    __syncthreads();

    const int size = *shared.size;
    const int half = size > 0 ? 1 << (31 - __clz(size)) : 0;
    count_row(shared, size, half, row, gallery);
    for (int i = thread; i < count; i += kRankThreads) {
      const int64_t member = members[i];
      if (member < 0 || member >= gallery) continue;
      const bool junk = a.gallery_cams[member] == camera;
      const T distance = junk ? row[member] : without_nan(row[member], a.infinity);
      const int place = place_of(shared, half, distance, static_cast<int>(member));
      if (place >= size) continue;
      if (junk) {
        atomicAdd(&shared.histogram[place], -1);
      } else {
        atomicAdd(&shared.ahead[place], 1);
      }
    }
    __syncthreads();

    int64_t rank = a.gallery, ahead = thread;  // of a thread without a positive: padding
    if (thread < size) {
      rank = ahead = 0;
      for (int other = 0; other <= thread; ++other) {
        rank += shared.histogram[other];
        ahead += shared.ahead[other];
      }
    }
    // In the usual single turn the padding is stored along with the ranks, in whole sectors.
    const bool writes = thread < size || count <= kMembers;
    if (writes && ahead < a.most) ranks[ahead] = rank;
    found += size;
    written = count <= kMembers ? kRankThreads : found;
  }
  for (int64_t i = written + thread; i < a.most; i += kRankThreads) ranks[i] = a.gallery;
  if (thread == 0) a.found[query] = found;
}

}  // namespace dsa
