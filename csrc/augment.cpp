#include "augment.h"

#include <cmath>

#include "philox.h"

namespace dsa {
namespace {

constexpr uint32_t kGeometry = 0, kPerson = 1, kFirstParts = 2, kFirstAttempt = 8;
constexpr int kAttempts = 100;  // a tall box may not fit: it is drawn again, as random erasing does

void erase_box(const AugmentSettings& settings, Augmentation& drawn, const Words& words) {
  constexpr double kLeastArea = 0.02, kMostArea = 0.4, kLeastAspect = 0.3;
  const double share = kLeastArea + (kMostArea - kLeastArea) * unit(words.word[0]);
  const double area = share * settings.height * settings.width;
  const double aspect = std::exp(std::log(kLeastAspect) * (1 - 2 * unit(words.word[1])));
  const int height = static_cast<int>(std::sqrt(area * aspect) + 0.5);
  const int width = static_cast<int>(std::sqrt(area / aspect) + 0.5);
  if (height < 1 || width < 1 || height >= settings.height || width >= settings.width) return;
  drawn.top = static_cast<int32_t>(below(words.word[2], settings.height - height + 1));
  drawn.left = static_cast<int32_t>(below(words.word[3], settings.width - width + 1));
  drawn.bottom = drawn.top + height, drawn.right = drawn.left + width;
}

}  // namespace

Augmentation draw_augmentation(const AugmentSettings& settings, uint64_t seed, uint32_t epoch, uint32_t image,
                               uint32_t repeat) {
  const auto words = [&](uint32_t slot) { return philox(seed, image, epoch, repeat, slot); };
  const Words geometry = words(kGeometry);
  const auto shift = [&](uint32_t word) {
    return static_cast<int32_t>(below(word, 2 * settings.pad + 1)) - settings.pad;
  };
  Augmentation drawn{};
  drawn.shift_y = shift(geometry.word[0]), drawn.shift_x = shift(geometry.word[1]);
  drawn.flip = unit(geometry.word[2]) < settings.flip;
  if (unit(geometry.word[3]) < settings.erase) {
    for (int i = 0; i < kAttempts && drawn.bottom == 0; ++i) {
      erase_box(settings, drawn, words(kFirstAttempt + i));
    }
  }
  drawn.keep = kKeepAll;
  if (settings.drop_person > 0 && unit(words(kPerson).word[0]) < settings.drop_person) drawn.keep = 0;
  for (int part = 1; part <= kParts && settings.drop_part > 0; ++part) {
    const uint32_t word = words(kFirstParts + (part - 1) / 4).word[(part - 1) % 4];
    if (unit(word) < settings.drop_part) drawn.keep &= ~(1 << part);
  }
  return drawn;
}

}  // namespace dsa
