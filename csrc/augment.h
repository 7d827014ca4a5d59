// Augmentation (section 4.1 of the paper: random crop, horizontal flip, random erasing), drawn for each
// sample by itself.
//
// The rules: a sample's draw is a function of (settings, seed, epoch, image, repeat) alone. Philox's key
// is the seed, its counter (image, epoch, repeat, slot). The four words of each slot:
//    slot 0       shift in rows, shift in columns, flip, erase
//    slot 1       the whole IUV map is dropped, -, -, -
//    slots 2..7   parts 1..24 of the IUV map are dropped, four a slot
//    slots 8..    an attempt at the erased box: area, aspect, top, left
// An event of probability p happens if unit(word) < p. Arithmetic is in double.
#pragma once

#include "parts.h"

namespace dsa {

// For one sample: a row of the int32 [B, 8] that dsa_ext.draw_augmentation returns. The view is what the
// network sees of the resized image: shifted, then flipped, then erased.
struct Augmentation {
  int32_t shift_y, shift_x;          // row and column of the resized image at which the view begins
  int32_t flip;                      // 0 or 1
  int32_t top, left, bottom, right;  // the erased box in the view, the last two exclusive; or empty
  int32_t keep;                      // bit I: the pixels of part I stay in the IUV map
};
static_assert(sizeof(Augmentation) == 32);

constexpr int32_t kKeepAll = 0x1ffffff;  // parts 1..24, and background

struct AugmentSettings {
  int height, width;  // of the view, pixels
  int pad;            // pixels on each side: shifts are -pad..pad
  double flip;        // probability
  double erase;       // probability; area 0.02..0.4 of the view, aspect (height by width) 0.3..1/0.3
  double drop_person, drop_part;  // probability of losing the IUV map, and each of its parts
};

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
Augmentation draw_augmentation(const AugmentSettings& settings, uint64_t seed, uint32_t epoch, uint32_t image,
                               uint32_t repeat);
#endif

}  // namespace dsa
