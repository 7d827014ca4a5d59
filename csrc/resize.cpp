#include "resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dsa {
namespace {

struct Window {
  int first, end;
  double centre, scale;  // scale: source pixels an output pixel is wide, at least 1
};

// Doubles in Pillow's order of operations, so that ties fall as they do there.
Window window(int in, int out, int pixel) {
  const double step = static_cast<double>(in) / out, scale = std::max(step, 1.0);
  const double centre = (pixel + 0.5) * step;
  const int first = std::max(static_cast<int>(centre - scale + 0.5), 0);
  const int end = std::min(static_cast<int>(centre + scale + 0.5), in);
  return {first, end, centre, scale};
}

}  // namespace

int resize_taps(int in, int out) {
  if (in == out) return 1;
  int taps = 1;
  for (int pixel = 0; pixel < out; ++pixel) {
    const Window w = window(in, out, pixel);
    taps = std::max(taps, w.end - w.first);
  }
  return taps;
}

void resize_table(int in, int out, int taps, int32_t* table) {
  std::vector<double> weight(taps);
  for (int pixel = 0; pixel < out; ++pixel, table += 1 + taps) {
    std::fill_n(table, 1 + taps, 0);
    if (in == out) {
      table[0] = pixel, table[1] = 1 << kWeightBits;
      continue;
    }
    const Window w = window(in, out, pixel);
    table[0] = std::min(w.first, in - taps);  // at the far edge zeros come first
    double sum = 0;
    for (int x = w.first; x < w.end; ++x) {
      const double distance = std::abs((x - w.centre + 0.5) * (1.0 / w.scale));
      weight[x - w.first] = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += weight[x - w.first];
    }
    for (int x = w.first; x < w.end; ++x) {
      const double share = sum != 0.0 ? weight[x - w.first] / sum : 0.0;
      table[1 + x - table[0]] = static_cast<int32_t>(0.5 + share * (1 << kWeightBits));
    }
  }
}

bool resize_is_narrow(int out, int taps, const int32_t* table) {
  constexpr int32_t kBelow = (1 << (kWeightBits - kNarrowBits)) - 1;
  for (int i = 0; i < out * (1 + taps); ++i) {
    if (i % (1 + taps) != 0 && (table[i] & kBelow) != 0) return false;
  }
  return true;
}

std::vector<ResizeRun> resize_runs(int in, int out, int taps, const int32_t* table, bool flip) {
  constexpr int kColours = 3, kBytes = 16;
  const int in_bytes = in * kColours, out_bytes = out * kColours;
  if (taps != 2 || in_bytes < kBytes || out_bytes < kBytes || !resize_is_narrow(out, taps, table)) return {};
  std::vector<ResizeRun> runs;
  for (int start = 0; start < out_bytes; start += kBytes) {
    ResizeRun run{};
    run.out = std::min(start, out_bytes - kBytes), run.in = in_bytes - kBytes;
    const auto entry = [&](int i) {
      const int pixel = (run.out + i) / kColours;
      return table + 3 * (flip ? out - 1 - pixel : pixel);
    };
    for (int i = 0; i < kBytes; ++i) run.in = std::min(run.in, entry(i)[0] * kColours);
    for (int i = 0; i < kBytes; ++i) {
      const int first = entry(i)[0] * kColours + (run.out + i) % kColours - run.in;
      if (first + kColours >= kBytes) return {};
      run.first[i] = static_cast<uint8_t>(first), run.second[i] = static_cast<uint8_t>(first + kColours);
      run.a[i] = static_cast<uint16_t>(entry(i)[1] >> (kWeightBits - kNarrowBits));
      run.b[i] = static_cast<uint16_t>(entry(i)[2] >> (kWeightBits - kNarrowBits));
    }
    runs.push_back(run);
  }
  return runs;
}

}  // namespace dsa
