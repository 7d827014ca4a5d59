// The counters behind `make kernels`. The kernels are compiled with -fsanitize=thread but not linked
// with a sanitizer: the calls that the compiler puts before each access end here.
//
// Lanes of a warp run one after the other, so requests are put together afterwards: accesses
// belong to one request when they come from the same instruction in the same iteration of all
// loops around it, as on a warp that reconverges after each branch.
#include "counters.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "hooks.h"
#include "simt.h"

namespace simt {
namespace {

enum Kind : uint8_t { load, store, atomic };

struct Access {
  uint64_t instruction;  // with its iteration, hashed
  uint64_t address;
  uint32_t bytes;
  uint16_t warp;
  Kind kind;
};

std::vector<Buffer> watched;
std::vector<std::unordered_set<uint64_t>> loaded, stored;
std::vector<Access> accesses;                        // of the block that runs
std::array<std::vector<uint32_t>, 1024> iterations;  // of each thread, the innermost loop last
const unsigned char* shared_begin;
size_t shared_size;
Counts counts;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

void record(const void* address, size_t bytes, Kind kind, void* from) {
  if (!in_kernel()) return;
  uint64_t instruction = mix(kind, reinterpret_cast<uint64_t>(from));
  for (const uint32_t iteration : iterations[thread()]) instruction = mix(instruction, iteration);
  accesses.push_back({instruction, reinterpret_cast<uint64_t>(address), static_cast<uint32_t>(bytes),
                      static_cast<uint16_t>(warp()), kind});
}

using Span = std::pair<const Access*, const Access*>;

// Shared memory serves 128 bytes at a time: all lanes of 4 bytes or fewer, 16 of 8, 8 of 16.
// Lanes that read one word share it; words of one bank wait for each other.
void count_shared(Span span) {
  Shared& shared = counts.shared;
  shared.requests++;
  if (span.first->kind == atomic) {
    shared.atomics++;
    shared.atomic_lanes += span.second - span.first;
    int most = 0;
    for (const Access* a = span.first; a < span.second; ++a) {
      most = std::max<int>(most, std::count_if(span.first, span.second,
                                               [&](const Access& b) { return b.address == a->address; }));
    }
    shared.atomic_serial += most;
  }
  const int together = std::max(1, 32 / std::max<int>(1, (span.first->bytes + 3) / 4));
  for (const Access* a = span.first; a < span.second; a += together) {
    std::array<std::vector<uint64_t>, 32> banks;
    for (const Access* lane = a; lane < std::min(a + together, span.second); ++lane) {
      for (uint64_t word = lane->address / 4; word <= (lane->address + lane->bytes - 1) / 4; ++word) {
        std::vector<uint64_t>& bank = banks[word % 32];
        if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
      }
    }
    size_t most = 1;
    for (const auto& bank : banks) most = std::max(most, bank.size());
    shared.wavefronts += static_cast<int64_t>(most);
    shared.least_wavefronts++;
  }
}

void count_global(Span span, size_t which) {
  Buffer& buffer = watched[which];
  Requests& requests = span.first->kind == load ? buffer.loads : buffer.stores;
  auto& distinct = span.first->kind == load ? loaded[which] : stored[which];
  std::vector<std::pair<uint64_t, uint32_t>> sectors;  // with a bit for each byte
  for (const Access* a = span.first; a < span.second; ++a) {
    requests.bytes += a->bytes;
    for (uint64_t byte = a->address; byte < a->address + a->bytes; ++byte) {
      if (sectors.empty() || sectors.back().first != byte / 32) sectors.push_back({byte / 32, 0});
      sectors.back().second |= 1u << byte % 32;
    }
  }
  std::sort(sectors.begin(), sectors.end());
  requests.requests++;
  requests.wide += span.first->bytes == 16;
  for (size_t i = 0; i < sectors.size();) {
    uint32_t covered = 0;
    const uint64_t sector = sectors[i].first;
    for (; i < sectors.size() && sectors[i].first == sector; ++i) covered |= sectors[i].second;
    requests.sectors++;
    requests.full_sectors += covered == 0xffffffffu;
    distinct.insert(sector);
  }
}

void count_request(Span span) {
  const auto* address = reinterpret_cast<const unsigned char*>(span.first->address);
  if (address >= shared_begin && address < shared_begin + shared_size) return count_shared(span);
  for (size_t i = 0; i < watched.size(); ++i) {
    if (address >= watched[i].begin && address < watched[i].begin + watched[i].bytes) {
      return count_global(span, i);
    }
  }
}

}  // namespace

void watch(const char* name, const void* begin, size_t bytes) {
  watched.push_back({name, static_cast<const unsigned char*>(begin), bytes, {}, {}, 0, 0});
  loaded.emplace_back();
  stored.emplace_back();
}

void forget_buffers() { watched.clear(), loaded.clear(), stored.clear(); }

Counts take_counts() {
  for (size_t i = 0; i < watched.size(); ++i) {
    watched[i].load_sectors = static_cast<int64_t>(loaded[i].size());
    watched[i].store_sectors = static_cast<int64_t>(stored[i].size());
  }
  counts.buffers = watched;
  return std::exchange(counts, Counts{});
}

void count_launch(const char* kernel) { counts.kernel = kernel, counts.launches++; }
void count_launch_end() {}

void count_block(const unsigned char* shared, size_t bytes) {
  shared_begin = shared, shared_size = bytes;
  counts.blocks++;
  counts.shared_bytes = static_cast<int64_t>(bytes);
  accesses.clear();
}

void count_block_end() {
  // Stable: the lanes of a request stay in the order in which they ran, ascending.
  std::stable_sort(accesses.begin(), accesses.end(), [](const Access& a, const Access& b) {
    return a.warp != b.warp ? a.warp < b.warp : a.instruction < b.instruction;
  });
  const Access* end = accesses.data() + accesses.size();
  for (const Access* first = accesses.data(); first < end;) {
    const Access* last = first;
    while (last < end && last->warp == first->warp && last->instruction == first->instruction) ++last;
    count_request({first, last});
    first = last;
  }
}

Loop::Loop() {
  if (in_kernel()) iterations[thread()].push_back(0);
}
Loop::~Loop() {
  if (in_kernel()) iterations[thread()].pop_back();
}
void Loop::next() {
  if (in_kernel()) iterations[thread()].back()++;
}

void copy_silently(void* to, const void* from, int bytes) { std::memcpy(to, from, bytes); }

void count_atomic(const void* address, int bytes) {
  record(address, bytes, atomic, __builtin_return_address(0));
}

}  // namespace simt

// The names that the compiler calls.
extern "C" {
#define SIMT_HOOK(bytes)                                                    \
  void __tsan_read##bytes(void* address) {                                  \
    simt::record(address, bytes, simt::load, __builtin_return_address(0));  \
  }                                                                         \
  void __tsan_write##bytes(void* address) {                                 \
    simt::record(address, bytes, simt::store, __builtin_return_address(0)); \
  }
SIMT_HOOK(1)
SIMT_HOOK(2)
SIMT_HOOK(4)
SIMT_HOOK(8)
SIMT_HOOK(16)
void __tsan_unaligned_read2(void* a) { simt::record(a, 2, simt::load, __builtin_return_address(0)); }
void __tsan_unaligned_read4(void* a) { simt::record(a, 4, simt::load, __builtin_return_address(0)); }
void __tsan_unaligned_read8(void* a) { simt::record(a, 8, simt::load, __builtin_return_address(0)); }
void __tsan_unaligned_read16(void* a) { simt::record(a, 16, simt::load, __builtin_return_address(0)); }
void __tsan_unaligned_write2(void* a) { simt::record(a, 2, simt::store, __builtin_return_address(0)); }
void __tsan_unaligned_write4(void* a) { simt::record(a, 4, simt::store, __builtin_return_address(0)); }
void __tsan_unaligned_write8(void* a) { simt::record(a, 8, simt::store, __builtin_return_address(0)); }
void __tsan_unaligned_write16(void* a) { simt::record(a, 16, simt::store, __builtin_return_address(0)); }
void __tsan_read_range(void* a, long n) { simt::record(a, n, simt::load, __builtin_return_address(0)); }
void __tsan_write_range(void* a, long n) { simt::record(a, n, simt::store, __builtin_return_address(0)); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
