// What counts_NAME.cpp share: the least memory that work can touch, the printed line, people as IUV maps.
//
// `least` is the fewest 32-byte sectors that the work can touch: every I, U and V only where a pixel
// is foreground, the image only where a pixel wins a cell, each output byte once; of a batch also what its
// views do not show is left out, and of the stored images what no shown pixel is a sum of.
#pragma once

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "cases.h"
#include "counters.h"
#include "simt.h"

namespace counts {

constexpr int kHeight = 256, kWidth = 128, kSize = 32, kChannels = 3;

// Sectors of `memory` that hold one of the elements that are marked.
using Sectors = std::set<uint64_t>;
inline void mark(Sectors& sectors, const void* address) {
  sectors.insert(reinterpret_cast<uint64_t>(address) / 32);
}

inline void print(const std::string& what, const simt::Counts& counts, std::map<std::string, int64_t> least) {
  std::printf(
      "{\"what\": \"%s\", \"kernel\": \"%s\", \"launches\": %ld, \"blocks\": %ld, \"shared_bytes\": %ld, "
      "\"instructions\": %ld",
      what.c_str(), counts.kernel.c_str(), counts.launches, counts.blocks, counts.shared_bytes,
      counts.instructions);
  const simt::Shared& s = counts.shared;
  std::printf(
      ", \"shared\": {\"requests\": %ld, \"wavefronts\": %ld, \"least_wavefronts\": %ld, \"atomics\": %ld, "
      "\"atomic_lanes\": %ld, \"atomic_serial\": %ld}, \"buffers\": [",
      s.requests, s.wavefronts, s.least_wavefronts, s.atomics, s.atomic_lanes, s.atomic_serial);
  const char* comma = "";
  for (const simt::Buffer& b : counts.buffers) {
    for (const bool stores : {false, true}) {
      const simt::Requests& r = stores ? b.stores : b.loads;
      if (!r.requests) continue;
      const int64_t distinct = stores ? b.store_sectors : b.load_sectors;
      const int64_t fewest = least.count(b.name) ? least[b.name] : int64_t(b.bytes + 31) / 32;
      std::printf(
          "%s{\"name\": \"%s\", \"kind\": \"%s\", \"requests\": %ld, \"bytes\": %ld, \"sectors\": %ld, "
          "\"full_sectors\": %ld, \"wide\": %ld, \"distinct\": %ld, \"least\": %ld}",
          comma, b.name.c_str(), stores ? "store" : "load", r.requests, r.bytes, r.sectors, r.full_sectors,
          r.wide, distinct, fewest);
      comma = ", ";
    }
  }
  std::printf("]}\n");
}

// Person-shaped: a block of 6 x 4 parts with smooth charts and a little noise, 45 % of the image.
inline void draw_people(cases::Random& random, int images, int image_height, int image_width,
                        const int64_t (&stride)[4], uint8_t* iuv) {
  const int height = image_height * 77 / 100, width = image_width * 59 / 100;
  for (int b = 0; b < images; ++b) {
    std::vector<int> part(24);
    std::iota(part.begin(), part.end(), 1);
    for (int i = 24; i > 1; --i) std::swap(part[i - 1], part[random.below(i)]);
    const int top = random.below(image_height - height + 1), left = random.below(image_width - width + 1);
    for (int y = 0; y < image_height; ++y) {
      for (int x = 0; x < image_width; ++x) {
        const bool person = y >= top && y < top + height && x >= left && x < left + width;
        const float down = (y - top) * 6.f / height, across = (x - left) * 4.f / width;
        auto chart = [&](float at) {
          return std::clamp(static_cast<int>((at - int(at)) * 255) + random.below(15) - 7, 0, 255);
        };
        const int value[3] = {person ? part[int(down) * 4 + int(across)] : 0, person ? chart(down) : 0,
                              person ? chart(across) : 0};
        for (int plane = 0; plane < 3; ++plane) {
          iuv[b * stride[0] + plane * stride[1] + y * stride[2] + x * stride[3]] =
              static_cast<uint8_t>(value[plane]);
        }
      }
    }
  }
}

// What is counted of an operation for a batch of so many images; counts_NAME.cpp registers it.
struct Suite {
  Suite(const char* name, void (*run)(int images)) { all()[name] = run; }
  static std::map<std::string, void (*)(int)>& all() {
    static std::map<std::string, void (*)(int)> suites;
    return suites;
  }
};

}  // namespace counts
