// The CPU backend as a C++ user calls it, against values worked out by hand.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

#include "augment.h"
#include "batch.h"
#include "iuv.h"
#include "merge.h"
#include "philox.h"
#include "rank.h"
#include "resize.h"
#include "warp.h"

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                      \
    }                                                                                    \
  } while (0)

static void cells_are_the_floor_of_the_exact_product() {
  for (int size = 1; size <= 256; ++size) {
    for (int q = 0; q < 256; ++q) {
      const int cell = dsa::cell_of(static_cast<uint8_t>(q), size);
      CHECK(cell <= size - 1);
      CHECK(q == 255 ? cell == size - 1 : cell * 255 <= q * size && (cell + 1) * 255 > q * size);
    }
  }
}

static void conversions_round_to_nearest_even() {
  CHECK(dsa::from_float<dsa::Half>(1.f).bits == 0x3c00);
  CHECK(dsa::from_float<dsa::Half>(65519.f).bits == 0x7bff);
  CHECK(dsa::from_float<dsa::Half>(65520.f).bits == 0x7c00);
  CHECK(dsa::from_float<dsa::Half>(0x1p-24f).bits == 1);
  CHECK(dsa::from_float<dsa::Half>(0x1p-25f).bits == 0);
  CHECK(dsa::from_float<dsa::BFloat>(1.00390625f).bits == 0x3f80);  // a tie: down to even
  CHECK(dsa::from_float<dsa::BFloat>(1.01171875f).bits == 0x3f82);  // a tie: up to even
  for (int bits = 0; bits < 0x7c00; ++bits) {
    const dsa::Half half{static_cast<uint16_t>(bits)};
    CHECK(dsa::from_float<dsa::Half>(dsa::to_float(half)).bits == bits);
  }
}

static void the_last_pixel_of_a_cell_wins() {
  const uint8_t image[4] = {10, 20, 30, 40};
  const uint8_t iuv[12] = {3, 3, 0, 25, 0, 0, 0, 0, 255, 255, 0, 0};  // I, U, V of 2 x 2 pixels
  std::vector<float> out(24 * 4 * 4, -1.f);
  std::vector<int32_t> source(24 * 4 * 4, 7);
  const float fill[1] = {0.5f};
  const dsa::Normalise normalise[1] = {};
  dsa::WarpImages call{};
  call.batch = 1, call.channels = 1, call.height = 2, call.width = 2, call.size = 4, call.parts = 24;
  call.image = image, call.image_type = dsa::Type::uint8, call.iuv = iuv;
  call.out = out.data(), call.out_type = dsa::Type::float32, call.source = source.data();
  call.fill = fill, call.normalise = normalise;
  const int64_t image_stride[4] = {4, 4, 2, 1}, iuv_stride[4] = {12, 4, 2, 1};
  const int64_t out_stride[5] = {384, 16, 16, 4, 1};
  std::copy_n(image_stride, 4, call.image_stride);
  std::copy_n(iuv_stride, 4, call.iuv_stride);
  std::copy_n(out_stride, 5, call.out_stride);
  CHECK(dsa::warp_cpu(call, 0, 0, 24));
  for (int cell = 0; cell < 24 * 16; ++cell) {
    const bool hit = cell == 2 * 16 + 3;  // part 3, row 0, column 3
    CHECK(out[cell] == (hit ? 20 / 255.f : 0.5f));
    CHECK(source[cell] == (hit ? 1 : -1));
  }
}

// Whether units of the parts [0, 3) and [3, 24) take a map of one pixel.
static std::pair<bool, bool> units_take(float i, float u, float v) {
  const uint8_t image[1] = {10};
  const float iuv[3] = {i, u, v}, fill[1] = {};
  uint8_t out[24 * 4] = {};
  const dsa::Normalise normalise[1] = {};
  dsa::WarpImages call{};
  call.batch = call.channels = call.height = call.width = 1, call.size = 2, call.parts = 24;
  call.image = image, call.iuv = iuv, call.iuv_is_float = true, call.iuv_stride[1] = 1;
  call.out = out, call.fill = fill, call.normalise = normalise;
  const int64_t out_stride[5] = {96, 4, 4, 2, 1};
  std::copy_n(out_stride, 5, call.out_stride);
  return {dsa::warp_cpu(call, 0, 0, 3), dsa::warp_cpu(call, 0, 3, 24)};
}

static void impossible_floating_maps_are_told() {
  const float far = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float most = 1 + dsa::kOvershoot, least = -dsa::kOvershoot;
  const auto taken = [](float i, float u, float v) { return units_take(i, u, v) == std::pair(true, true); };
  const auto told = [](float i, float u, float v) { return units_take(i, u, v) == std::pair(false, false); };
  CHECK(taken(3, 0, 1) && taken(3, least, most) && taken(24, most, least) && taken(1, -0.f, 0.5f));
  CHECK(taken(0, 255, -far) && taken(-0.f, 2, 2) && taken(-1, 255, 0) && taken(25, 0, far) &&
        taken(1e30f, 2, 2));
  CHECK(taken(nan, 2, 0) && taken(2.5f, nan, 0) && taken(3, far, nan) && taken(3, nan, -7));
  for (const float x : {std::nextafter(most, far), std::nextafter(least, -far), 255.f, -0.5f, far, -far}) {
    CHECK(told(1, x, 0) && told(1, 0, x) && told(24, x, 1) && told(24, 1, x));
  }
  for (const float i : {3 / 255.f, 2.5f, -0.5f, 24.5f, 25.5f, far, -far}) CHECK(told(i, 0, 0));
}

static void groups_are_added() {
  std::vector<float> parts(24), shortcut(24, -3.f), groups(13), spread(24);
  for (int part = 0; part < 24; ++part) parts[part] = static_cast<float>(part + 1);
  dsa::MergeCall call{dsa::merge_table(false), 1, 1, dsa::Type::float32};
  call.features = parts.data(), call.out = groups.data();
  dsa::merge_cpu(call, 0, 13);
  CHECK(groups[0] == 1.f && groups[1] == 2.f && groups[2] == 3.f + 4.f && groups[12] == 23.f + 24.f);
  call.residual = shortcut.data(), call.relu = true;  // parts 1, 2 and 3 come out as 0
  dsa::merge_cpu(call, 0, 13);
  CHECK(groups[0] == 0.f && groups[1] == 0.f && groups[2] == 1.f && groups[12] == 20.f + 21.f);
  call.merged = groups.data(), call.out = spread.data();
  dsa::expand_cpu(call, 0, 13);
  CHECK(spread[0] == 0.f && spread[2] == 0.f && spread[3] == 1.f && spread[22] == 41.f);
  call.features = call.residual = nullptr;
  dsa::expand_cpu(call, 0, 13);
  CHECK(spread[2] == 1.f && spread[3] == 1.f && spread[23] == 41.f);
}

// Images 1, 3, 4, 6 and 8 are of the query's identity, 4 of its camera too: junk.
template <class T>
static void positives_are_ranked_by_counting() {
  const T far = std::numeric_limits<T>::infinity();
  const T distances[2][10] = {{2, 2, 1, 0, -1, 2, 2, 9, far, far}, {5, 5, 5, 5, 5, 5, 5, 5, 5, 5}};
  const int64_t members[9] = {1, 3, 4, 6, 8, 0, 2, 5, 7};
  const int64_t gallery_cams[9] = {1, 1, 1, 1, 0, 1, 1, 1, 1};
  const int64_t first[2] = {0, 5}, count[2] = {5, 0}, query_cams[2] = {0, 0};
  int64_t ranks[2][6], found[2];
  dsa::RankCall call{};
  call.queries = 2, call.gallery = 9, call.most = 6;
  call.distances = distances, call.is_double = sizeof(T) == 8, call.row_stride = 10;
  call.members = members, call.first = first, call.count = count;
  call.query_cams = query_cams, call.gallery_cams = gallery_cams;
  call.ranks = ranks[0], call.found = found;
  for (int64_t query = 0; query < 2; ++query) dsa::rank_cpu(call, query);
  const int64_t expected[2][6] = {{0, 3, 5, 7, 9, 9}, {9, 9, 9, 9, 9, 9}};
  CHECK(found[0] == 4 && found[1] == 0);
  CHECK(std::equal(ranks[0], ranks[0] + 12, expected[0]));
}

// The known answers of Random123's kat_vectors.
static void philox_gives_its_published_numbers() {
  const auto gives = [](uint64_t key, const uint32_t (&c)[4], const uint32_t (&expected)[4]) {
    const dsa::Words words = dsa::philox(key, c[0], c[1], c[2], c[3]);
    CHECK(std::equal(expected, expected + 4, words.word));
  };
  gives(0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  gives(~uint64_t{0}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  gives(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// Seed, epoch, image and repeat 0: slot 0 is the first of the numbers above, 0.399, 0.881, 0.736, 0.606.
static void samples_are_drawn_from_philox() {
  dsa::AugmentSettings settings{256, 128, 10, 0.73, 0.6, 0, 0};
  dsa::Augmentation drawn = dsa::draw_augmentation(settings, 0, 0, 0, 0);
  CHECK(drawn.shift_y == -2 && drawn.shift_x == 8);  // floor(21 * 0.399) - 10, floor(21 * 0.881) - 10
  CHECK(drawn.flip == 0 && drawn.bottom == 0 && drawn.right == 0 && drawn.keep == dsa::kKeepAll);
  settings.flip = 0.74, settings.erase = 0.61, settings.drop_part = 1;
  drawn = dsa::draw_augmentation(settings, 0, 0, 0, 0);
  CHECK(drawn.flip == 1 && drawn.keep == 1);  // bit 0 is background
  // Slot 8 is 0.841, 0.768, 0.830, 0.410: area (0.02 + 0.38 * 0.841) * 256 * 128, aspect 0.3^(1 - 2 * 0.768),
  // so 145.6 x 76.4 pixels; top floor(111 * 0.830), left floor(53 * 0.410).
  CHECK(drawn.top == 92 && drawn.left == 21 && drawn.bottom == 92 + 146 && drawn.right == 21 + 76);
  settings.drop_part = 0, settings.drop_person = 1;
  CHECK(dsa::draw_augmentation(settings, 0, 0, 0, 0).keep == 0);
  for (const dsa::Augmentation& other :
       {dsa::draw_augmentation(settings, 1, 0, 0, 0), dsa::draw_augmentation(settings, 0, 1, 0, 0),
        dsa::draw_augmentation(settings, 0, 0, 1, 0), dsa::draw_augmentation(settings, 0, 0, 0, 1)}) {
    CHECK(other.shift_y != drawn.shift_y || other.shift_x != drawn.shift_x);
  }
}

static void resize_weights_are_a_triangle() {
  const auto table_is = [](int in, int out, std::vector<int32_t> expected) {
    const int taps = dsa::resize_taps(in, out);
    CHECK(out * (1 + taps) == static_cast<int>(expected.size()));
    std::vector<int32_t> table(expected.size());
    dsa::resize_table(in, out, taps, table.data());
    CHECK(table == expected);
  };
  const int32_t one = 1 << dsa::kWeightBits;
  table_is(2, 2, {0, one, 1, one});
  table_is(2, 4, {0, one, 0, 0, one / 4 * 3, one / 4, 0, one / 4, one / 4 * 3, 0, 0, one});
  table_is(4, 2, {0, 1797559, 1797559, 599186, 1, 599186, 1797559, 1797559});  // 3/7, 3/7, 1/7
  CHECK(dsa::resize_round(one / 2 - 1) == 0 && dsa::resize_round(one / 2) == 1);
}

// Two samples of a store of one image, 2 x 2, resized to 2 x 4: A, B over C, D become A, 3A + B, A + 3B, B
// over the same of C and D. The view begins at column 1 and is flipped; its last pixel is erased.
static void a_batch_is_gathered_resized_flipped_and_warped() {
  uint8_t images[12];  // channel c of pixel p is 40 p + c
  for (int i = 0; i < 12; ++i) images[i] = static_cast<uint8_t>(40 * (i / 3) + i % 3);
  const uint8_t iuv[12] = {3, 0, 0, 3, 10, 20, 9, 0, 0, 1, 200, 0};
  const int64_t index[2] = {0, 1};  // 1 is outside of the store
  const dsa::Augmentation drawn[2] = {{0, 1, 1, 1, 3, 2, 4, dsa::kKeepAll}, {0, 0, 0, 0, 0, 0, 0, 0}};
  std::vector<int32_t> rows(2 * 2), columns(4 * 3);
  dsa::resize_table(2, 2, 1, rows.data()), dsa::resize_table(2, 4, 2, columns.data());
  std::vector<float> image(2 * 3 * 2 * 4, -9.f), dsap(2 * 24 * 3 * 2 * 2, -9.f);
  dsa::BatchCall call{};
  call.images_stored = 1, call.stored_height = 2, call.stored_width = 2;
  call.images = images, call.images_stride = 12, call.iuv = iuv, call.iuv_stride = 12;
  call.batch = 2, call.index = index, call.drawn = drawn, call.augmented_dsap = true;
  call.height = 2, call.width = 4, call.row_taps = 1, call.column_taps = 2;
  call.rows = rows.data(), call.columns = columns.data();
  call.size = 2, call.parts = 24, call.type = dsa::Type::float32;
  call.image = image.data(), call.dsap = dsap.data();
  const int64_t image_stride[4] = {24, 8, 4, 1}, dsap_stride[5] = {288, 12, 4, 2, 1};
  std::copy_n(image_stride, 4, call.image_stride), std::copy_n(dsap_stride, 5, call.dsap_stride);
  std::fill_n(call.fill, 3, 7.f), std::fill_n(call.normalise, 3, dsa::Normalise{true, 0.5f, 0.25f});
  const dsa::BatchTables tables(call);
  for (int sample = 0; sample < 2; ++sample) dsa::assemble_cpu(call, tables, sample);

  const auto value = [](int x) { return x < 0 ? 7.f : (x / 255.f - 0.5f) / 0.25f; };
  const int seen[8] = {-1, 40, 30, 10, -1, 120, 110, -1};
  for (int i = 0; i < 24; ++i) {
    const int x = seen[i % 8];
    CHECK(image[i] == value(x < 0 ? x : x + i / 8) && image[24 + i] == 7.f);
  }
  // A and B are of the right hand, whose chart a flip turns: they meet in the left hand's row 1, column 0,
  // and A comes last. C is erased. D is of the back, which turns along V.
  for (int i = 0; i < 288; ++i) {
    const int cell = i / 12 * 4 + i % 4, c = i % 12 / 4;  // of part images of 4 cells
    const int x = cell == 3 * 4 + 2 ? 0 : cell == 3 ? 120 : -1;
    CHECK(dsap[i] == value(x < 0 ? x : x + c) && dsap[288 + i] == 7.f);
  }
}

int main() {
  philox_gives_its_published_numbers();
  samples_are_drawn_from_philox();
  resize_weights_are_a_triangle();
  a_batch_is_gathered_resized_flipped_and_warped();
  cells_are_the_floor_of_the_exact_product();
  conversions_round_to_nearest_even();
  the_last_pixel_of_a_cell_wins();
  impossible_floating_maps_are_told();
  groups_are_added();
  positives_are_ranked_by_counting<float>();
  positives_are_ranked_by_counting<double>();
  std::puts("all kernel checks hold");
}
