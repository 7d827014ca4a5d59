// Memory traffic of the typical batch.
#include "counts.h"
#include "resize.h"
#include "batch.h"

using namespace cases;
using namespace counts;

namespace {

// What the view of a sample shows: a byte for each stored pixel whose part image it may reach, and for
// each that a pixel of the resized image is a weighted sum of.
struct Needed {
  std::vector<char> iuv, image;
};
Needed needed(const dsa::BatchCall& call, int sample) {
  const dsa::Augmentation& a = call.drawn[sample];
  Needed result{std::vector<char>(call.stored_height * call.stored_width), {}};
  result.image = result.iuv;
  const auto shown = [&](int y, int x) {  // of the resized image
    const int row = y - a.shift_y, column = a.flip ? call.width - 1 - x + a.shift_x : x - a.shift_x;
    return row >= 0 && row < call.height && column >= 0 && column < call.width &&
           !(row >= a.top && row < a.bottom && column >= a.left && column < a.right);
  };
  for (int y = 0; y < call.stored_height; ++y) {
    for (int x = 0; x < call.stored_width; ++x) {
      result.iuv[y * call.stored_width + x] = shown((2 * y + 1) * call.height / (2 * call.stored_height),
                                                    (2 * x + 1) * call.width / (2 * call.stored_width));
    }
  }
  for (int y = 0; y < call.height; ++y) {
    for (int x = 0; x < call.width; ++x) {
      const int32_t* row = call.rows + y * (1 + call.row_taps);
      const int32_t* column = call.columns + x * (1 + call.column_taps);
      for (int j = 0; j < call.row_taps && shown(y, x); ++j) {
        for (int i = 0; i < call.column_taps; ++i) {
          result.image[(row[0] + j) * call.stored_width + column[0] + i] |= row[1 + j] && column[1 + i];
        }
      }
    }
  }
  return result;
}

// A batch of 128x64 images as a training loop asks for it: every stored one once, everything drawn.
void count_batch(const std::string& what, int images, Type type, bool last) {
  constexpr int kStoredHeight = kHeight / 2, kStoredWidth = kWidth / 2;
  constexpr int kPixels = kStoredHeight * kStoredWidth;
  Random random(4);
  dsa::BatchCall call{};
  call.images_stored = call.batch = images, call.augmented_dsap = true;
  call.stored_height = kStoredHeight, call.stored_width = kStoredWidth;
  call.height = kHeight, call.width = kWidth, call.size = kSize, call.parts = 24, call.type = type;
  call.images_stride = call.iuv_stride = 3 * kPixels;
  call.row_taps = dsa::resize_taps(kStoredHeight, kHeight);
  call.column_taps = dsa::resize_taps(kStoredWidth, kWidth);
  const int order[4] = {0, last ? 2 : 1, last ? 3 : 2, last ? 1 : 3};
  const int dsap_order[5] = {0, 1, last ? 3 : 2, last ? 4 : 3, last ? 2 : 4};
  const int64_t image_elements = strides({images, 3, kHeight, kWidth}, order, 0, call.image_stride);
  const int64_t dsap_elements = strides({images, 24, 3, kSize, kSize}, dsap_order, 0, call.dsap_stride);
  const Memory stored(images * 3 * kPixels), iuv(images * 3 * kPixels), index(images * 8);
  const Memory drawn(images * sizeof(dsa::Augmentation));
  const Memory rows(kHeight * (1 + call.row_taps) * 4), columns(kWidth * (1 + call.column_taps) * 4);
  const Memory image(image_elements * bytes_of(type)), dsap(dsap_elements * bytes_of(type));
  dsa::resize_table(kStoredHeight, kHeight, call.row_taps, rows.as<int32_t>());
  dsa::resize_table(kStoredWidth, kWidth, call.column_taps, columns.as<int32_t>());
  draw_all(random, Type::uint8, stored);
  const int64_t iuv_stride[4] = {3 * kPixels, 1, 3 * kStoredWidth, 3};
  draw_people(random, images, kStoredHeight, kStoredWidth, iuv_stride, iuv.begin());
  const dsa::AugmentSettings settings{kHeight, kWidth, 10, 0.5, 0.5, 0, 0};
  for (int b = 0; b < images; ++b) {
    index.as<int64_t>()[b] = b;
    drawn.as<dsa::Augmentation>()[b] = dsa::draw_augmentation(settings, 1, 0, b, 0);
  }
  call.images = stored.begin(), call.iuv = iuv.begin();
  call.index = index.as<int64_t>(), call.drawn = drawn.as<dsa::Augmentation>();
  call.rows = rows.as<int32_t>(), call.columns = columns.as<int32_t>();
  call.image = image.begin(), call.dsap = dsap.begin();

  Sectors least_iuv, least_stored;
  for (int b = 0; b < images; ++b) {
    const Needed need = needed(call, b);
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const int64_t at = b * call.iuv_stride + pixel * 3;
      if (need.iuv[pixel]) mark(least_iuv, iuv.begin() + at);
      for (int c = 0; c < 3; ++c) {
        if (need.iuv[pixel] && iuv.begin()[at]) mark(least_iuv, iuv.begin() + at + c);
        if (need.image[pixel]) mark(least_stored, stored.begin() + at + c);
      }
    }
  }
  simt::forget_buffers();
  simt::watch("stored", stored.begin(), stored.bytes);
  simt::watch("iuv", iuv.begin(), iuv.bytes);
  simt::watch("index", index.begin(), index.bytes);
  simt::watch("drawn", drawn.begin(), drawn.bytes);
  simt::watch("rows", rows.begin(), rows.bytes);
  simt::watch("columns", columns.begin(), columns.bytes);
  simt::watch("image", image.begin(), image.bytes);
  simt::watch("dsap", dsap.begin(), dsap.bytes);
  dsa::assemble_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"iuv", int64_t(least_iuv.size())}, {"stored", int64_t(least_stored.size())}});
}

void count_all(int images) {
  count_batch("batch, float32", images, Type::float32, false);
  count_batch("batch, float16 channels last", images, Type::float16, true);
}

const counts::Suite kBatch("batch", count_all);

}  // namespace
