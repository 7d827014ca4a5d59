// A small kernel with bugs to choose from, one for each thing that the harness must notice, and
// kernels whose memory traffic is known by hand.
#include <cuda_runtime.h>

#include "planted.h"

namespace {

constexpr int kThreads = 64;

// Each block turns its 64 numbers round through shared memory and adds up how many are even; each
// warp passes its lanes' numbers on by one through shared memory.
__global__ void turn_round(const int* in, int* out, int* evens, int count, Bug bug) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  int* const turned = reinterpret_cast<int*>(shared_bytes);
  int* const total = turned + kThreads;
  int* const passed = total + 1;
  const int thread = threadIdx.x;
  const int at = blockIdx.x * kThreads + thread;
  if (bug == Bug::early_return && at >= count) return;
  const int x = at < count ? in[bug == Bug::global_read ? at + 1 : at] : 0;
  if (bug != Bug::not_initialised && thread == 0) *total = 0;
  turned[bug == Bug::shared_write ? 2 * kThreads + 1 - thread : kThreads - 1 - thread] = x;
  if (bug == Bug::divergent_barrier && thread == 5) {
    __syncthreads();
  }
  __syncthreads();
  if (at < count && x % 2 == 0) {
    atomicAdd(&*total, 1);
  }
  passed[thread] = x;
  if (bug != Bug::no_warp_barrier) __syncwarp();
  const int neighbour = passed[thread / 32 * 32 + (thread + 1) % 32];
  __syncthreads();
  const int first = bug == Bug::overlap && blockIdx.x ? at - 1 : at;
  if (at < count) out[first] = turned[thread] + neighbour + (bug == Bug::wrong && at == 70);
  if (thread == 0) evens[blockIdx.x] = *total;
}

struct alignas(16) Four {
  int value[4];
};

// Known traffic; one warp, 32 * 4 numbers in and out.
__global__ void traffic(const int* in, int* out, Traffic kind) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  int* const shared = reinterpret_cast<int*>(shared_bytes);
  const int lane = threadIdx.x;
  switch (kind) {
    case Traffic::wide: reinterpret_cast<Four*>(out)[lane] = reinterpret_cast<const Four*>(in)[lane]; break;
    case Traffic::strided: out[lane * 4] = in[lane * 4]; break;
    case Traffic::loop:  // some lanes go round more often, and skip every other time
      for (int i = 0; i < 1 + lane % 4; ++i) {
        if ((i + lane) % 2 == 0) out[i * 32 + lane] = 1;
      }
      break;
    case Traffic::conflicts:
      shared[lane * 32] = lane;
      shared[lane] = lane;
      break;
    case Traffic::one_address: {
      atomicAdd(&shared[lane / 16], 1);
      break;
    }
  }
}

}  // namespace

int run_turn_round(const int* in, int* out, int* evens, int count, Bug bug) {
  const int blocks = (count + kThreads - 1) / kThreads;
  const int shared = bug == Bug::too_much_shared ? 50 << 10 : (2 * kThreads + 1) * 4;
  turn_round<<<blocks, kThreads, shared, nullptr>>>(in, out, evens, count, bug);
  return cudaGetLastError();
}

int run_traffic(const int* in, int* out, Traffic kind) {
  traffic<<<1, 32, 32 * 32 * 4, nullptr>>>(in, out, kind);
  return cudaGetLastError();
}
