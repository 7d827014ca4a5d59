// Runs the kernels that ptx.py translated, and counts their warps' instructions.
#include "ptx.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "counters.h"
#include "simt.h"

namespace ptx {
namespace {

std::map<std::string, const Kernel*>& all() {
  static std::map<std::string, const Kernel*> kernels;
  return kernels;
}

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "ptx: %s\n", what.c_str());
  std::exit(3);
}

// `dsa::warp_kernel<BFloat>` and `warp_kernel<dsa::BFloat>` are one name.
std::string plain(std::string name) {
  for (size_t at; (at = name.find("dsa::")) != std::string::npos;) name.erase(at, 5);
  return name;
}

struct Warp {
  std::vector<Lane*> lanes;

  // The earliest block of code that a lane can go on with; -1: all wait at a barrier or have returned. Lanes
  // that vote or meet wait for the others.
  int next(const Kernel& kernel) const {
    int earliest = -1, meeting = -1;
    size_t met = 0;
    for (const Lane* lane : lanes) {
      if (lane->at < 0 || lane->waits) continue;
      if (kernel.together(lane->at)) {
        met += meeting < 0 || meeting == lane->at;
        meeting = lane->at;
      } else if (earliest < 0 || lane->at < earliest) {
        earliest = lane->at;
      }
    }
    if (earliest >= 0 || meeting < 0) return earliest;
    if (met < 32) fail("lanes wait for others of their warp that never come");
    return meeting;
  }

  // Until every lane waits at a barrier or has returned. Returns the issue slots that this takes.
  int64_t run(const Kernel& kernel, const Block& block) {
    int64_t slots = 0;
    for (int at; (at = next(kernel)) >= 0;) {
      slots += kernel.weights[at];
      uint32_t ballot = 0;
      for (size_t k = 0; k < lanes.size(); ++k) {
        Lane& lane = *lanes[k];
        if (lane.at != at || lane.waits) continue;
        lane.at = kernel.step(lane, block);
        lane.waits = kernel.kinds[at] == Kind::barrier;
        if (kernel.kinds[at] == Kind::vote && lane.vote) ballot |= 1u << k;
      }
      if (kernel.kinds[at] != Kind::vote) continue;
      for (Lane* lane : lanes) *lane->ballot = ballot;
    }
    return slots;
  }
};

simt::Counts counts;

}  // namespace

void Block::check(bool inside, const char* what) {
  if (!inside) fail(std::string("an access beyond the ") + what);
}

Kernel::Kernel(const char* name, int (*step_)(Lane&, const Block&), const int* weights_, const Kind* kinds_,
               size_t lane_bytes_)
    : step(step_), weights(weights_), kinds(kinds_), lane_bytes(lane_bytes_) {
  all()[name] = this;
}

void launch(std::string name, dim3 grid, dim3 size, size_t shared_bytes, const void* arguments,
            size_t bytes) {
  name = plain(name);
  if (!all().count(name)) fail("there is no kernel " + name);
  const Kernel& kernel = *all()[name];
  const unsigned threads = size.x * size.y * size.z;
  const size_t stride = (kernel.lane_bytes + 15) / 16 * 16;
  std::vector<unsigned char> memory(stride * threads), shared(shared_bytes);
  std::vector<Warp> warps((threads + 31) / 32);
  for (unsigned k = 0; k < threads; ++k) {
    warps[k / 32].lanes.push_back(reinterpret_cast<Lane*>(memory.data() + k * stride));
  }
  counts.kernel = name.substr(0, name.find('<')), ++counts.launches;
  counts.shared_bytes = std::max<int64_t>(counts.shared_bytes, shared_bytes);
  for (uint64_t b = 0; b < uint64_t{grid.x} * grid.y * grid.z; ++b, ++counts.blocks) {
    const Block block{static_cast<uint32_t>(b % grid.x),
                      static_cast<uint32_t>(b / grid.x % grid.y),
                      static_cast<uint32_t>(b / grid.x / grid.y),
                      shared.data(),
                      shared_bytes,
                      static_cast<const unsigned char*>(arguments),
                      bytes};
    std::fill(memory.begin(), memory.end(), simt::settings.poison);
    std::fill(shared.begin(), shared.end(), simt::settings.poison);
    for (unsigned k = 0; k < threads; ++k) {
      Lane& lane = *warps[k / 32].lanes[k % 32];
      lane.at = 0, lane.waits = false, lane.thread = k;
    }
    for (bool more = true; more;) {
      more = false;
      for (Warp& warp : warps) counts.instructions += warp.run(kernel, block);
      for (Warp& warp : warps) {
        for (Lane* lane : warp.lanes) {
          more |= lane->at >= 0;
          lane->waits = false;  // all wait or have returned: the barrier opens
        }
      }
    }
  }
}

}  // namespace ptx

namespace simt {

void forget_buffers() {}
void watch(const char*, const void*, size_t) {}
Counts take_counts() {
  const Counts taken = ptx::counts;
  ptx::counts = {};
  return taken;
}

}  // namespace simt
