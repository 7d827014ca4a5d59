// What a launch does to memory, counted per warp request as the hardware forms them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simt {

// Requests of one kind. A request is what one instruction of a warp asks for at once; memory
// serves it in sectors of 32 bytes, shared memory in wavefronts (one, without bank conflicts, for
// every 128 bytes).
struct Requests {
  int64_t requests = 0;
  int64_t bytes = 0;         // asked for by the lanes, all together
  int64_t sectors = 0;       // of 32 bytes, summed over requests
  int64_t full_sectors = 0;  // sectors of which the request covers all 32 bytes
  int64_t wide = 0;          // requests of 16 bytes a lane
};

struct Buffer {
  std::string name;
  const unsigned char* begin;
  size_t bytes;
  Requests loads, stores;
  int64_t load_sectors = 0, store_sectors = 0;  // distinct ones in the launch
};

struct Shared {
  int64_t requests = 0, wavefronts = 0, least_wavefronts = 0;
  int64_t atomics = 0;        // requests
  int64_t atomic_lanes = 0;   // lanes in them
  int64_t atomic_serial = 0;  // sum over requests of the most lanes on one address
};

struct Counts {
  std::string kernel;
  int64_t launches = 0, blocks = 0, shared_bytes = 0;
  int64_t instructions = 0;  // of warps, see ptx.py; 0 where memory is counted
  std::vector<Buffer> buffers;
  Shared shared;
};

// Only buffers that are watched are counted; what else a kernel touches are its arguments.
void watch(const char* name, const void* begin, size_t bytes);
void forget_buffers();
// What all launches since the last call did.
Counts take_counts();

}  // namespace simt
