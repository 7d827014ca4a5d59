// The CPU backend as a C++ user calls it, against values worked out by hand.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "iuv.h"
#include "merge.h"
#include "rank.h"
#include "warp.h"

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                              \
    }                                                                            \
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
  dsa::warp_cpu(call, 0, 0, 24);
  for (int cell = 0; cell < 24 * 16; ++cell) {
    const bool hit = cell == 2 * 16 + 3;  // part 3, row 0, column 3
    CHECK(out[cell] == (hit ? 20 / 255.f : 0.5f));
    CHECK(source[cell] == (hit ? 1 : -1));
  }
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

int main() {
  cells_are_the_floor_of_the_exact_product();
  conversions_round_to_nearest_even();
  the_last_pixel_of_a_cell_wins();
  groups_are_added();
  positives_are_ranked_by_counting<float>();
  positives_are_ranked_by_counting<double>();
  std::puts("all kernel checks hold");
}
