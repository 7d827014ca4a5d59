// Shows that each check of the harness can fail: runs planted.cu with one of its bugs.
//
//   planted BUG [--planted SITE]   BUG = 0 (none) .. 9, as in planted.h
//   planted counts                 (mode "count") the counters against traffic known by hand
//
// Exit codes as kernels.cpp.
#include "planted.h"

#include "cases.h"
#include "simt.h"
#if defined(SIMT_COUNT)
#include "counters.h"
#endif

using namespace cases;

namespace {

void turn_round_case(Bug bug) {
  const int count = bug == Bug::early_return || bug == Bug::global_read ? 100 : 128;
  const Memory in(count * 4), out(count * 4), evens(2 * 4);
  for (int i = 0; i < count; ++i) in.as<int>()[i] = i * i % 97;
  if (run_turn_round(in.as<int>(), out.as<int>(), evens.as<int>(), count, bug)) return check(false, "launch");
  for (int block = 0; block < 2; ++block) {
    int even = 0;
    auto number = [&](int i) { return block * 64 + i < count ? in.as<int>()[block * 64 + i] : 0; };
    for (int i = 0; i < 64 && block * 64 + i < count; ++i) {
      even += number(i) % 2 == 0;
      const int expected = number(63 - i) + number(i / 32 * 32 + (i + 1) % 32);
      check(out.as<int>()[block * 64 + i] == expected, "number " + std::to_string(block * 64 + i));
    }
    check(evens.as<int>()[block] == even, "evens");
  }
}

#if defined(SIMT_COUNT)
void counts() {
  const Memory in(512), out(512);
  std::memset(in.begin(), 0, 512);
  auto count = [&](Traffic kind) {
    simt::forget_buffers();
    simt::watch("in", in.begin(), 512);
    simt::watch("out", out.begin(), 512);
    run_traffic(in.as<int>(), out.as<int>(), kind);
    return simt::take_counts();
  };
  simt::Counts wide = count(Traffic::wide);
  for (const simt::Requests& r : {wide.buffers[0].loads, wide.buffers[1].stores}) {
    check(r.requests == 1 && r.wide == 1 && r.sectors == 16 && r.full_sectors == 16 && r.bytes == 512,
          "wide");
  }
  check(wide.buffers[1].store_sectors == 16 && wide.buffers[1].load_sectors == 0, "distinct sectors");
  simt::Counts strided = count(Traffic::strided);
  for (const simt::Requests& r : {strided.buffers[0].loads, strided.buffers[1].stores}) {
    check(r.requests == 1 && r.wide == 0 && r.sectors == 16 && r.full_sectors == 0 && r.bytes == 128,
          "strided");
  }
  // Iterations 0..3 of the loop: the lanes that store are those of iteration i's parity that go
  // round so often; each iteration is one request, and never mixes with another.
  simt::Counts loop = count(Traffic::loop);
  check(loop.buffers[1].stores.requests == 4, "requests of a loop");
  check(loop.buffers[1].stores.bytes == 4 * (16 + 16 + 8 + 8), "bytes of a loop");
  simt::Counts conflicts = count(Traffic::conflicts);
  check(conflicts.shared.requests == 2 && conflicts.shared.wavefronts == 33 &&
            conflicts.shared.least_wavefronts == 2,
        "bank conflicts");
  simt::Counts atomics = count(Traffic::one_address);
  check(
      atomics.shared.atomics == 1 && atomics.shared.atomic_lanes == 32 && atomics.shared.atomic_serial == 16,
      "atomics on one address");
}
#endif

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  for (int i = 2; i + 1 < count; i += 2) {
    if (!set_option(words[i], words[i + 1])) return std::fprintf(stderr, "unknown option %s\n", words[i]), 2;
  }
#if defined(SIMT_COUNT)
  if (what == "counts") counts();
#endif
  if (what != "counts") turn_round_case(static_cast<Bug>(std::atoi(what.c_str())));
  std::printf("%d checks, %d differ\n", checks, failures);
  return failures != 0 || checks == 0;
}
