// Cases of the ranking: the kernel against the CPU backend, number for number.
#include <algorithm>

#include "cases.h"
#include "rank.h"
#include "simt.h"

using namespace cases;

namespace {

struct Case {
  int queries, gallery, identities, cameras;
  int levels;   // distances take so many values: few of them make ties
  int gap = 0;  // elements between the rows
};

template <class T>
void run(const Case& c, Random& random) {
  const int64_t stride = c.gallery + c.gap;
  const Memory distances(((c.queries - 1) * stride + c.gallery) * sizeof(T), c.gap ? sizeof(T) : 0);
  for (size_t i = 0; i < distances.bytes / sizeof(T); ++i) {
    T x = static_cast<T>(random.below(c.levels)) / 8;
    if (random.below(50) == 0) x = random.pick<T>({T(0), -T(0), T(__builtin_inf()), -T(__builtin_inf())});
    distances.as<T>()[i] = x;
  }
  // The gallery grouped by identity, as the callers group it.
  std::vector<int64_t> id(c.gallery), members(c.gallery), cams(c.gallery);
  for (int i = 0; i < c.gallery; ++i) {
    id[i] = random.below(c.identities), members[i] = i, cams[i] = random.below(c.cameras);
  }
  std::stable_sort(members.begin(), members.end(), [&](int64_t a, int64_t b) { return id[a] < id[b]; });
  std::vector<int64_t> first(c.queries), count(c.queries), query_cams(c.queries);
  int64_t most = 1;
  for (int q = 0; q < c.queries; ++q) {
    const int own = random.below(c.identities + 1);  // the last one has no image in the gallery
    first[q] = std::count_if(id.begin(), id.end(), [&](int64_t x) { return x < own; });
    count[q] = std::count(id.begin(), id.end(), own);
    query_cams[q] = random.below(c.cameras);
    most = std::max(most, count[q]);
  }
  if (random.below(2)) most = (most + 3) / 4 * 4;
  const Memory ranks(c.queries * most * 8), found(c.queries * 8);
  const Memory expected_ranks(c.queries * most * 8), expected_found(c.queries * 8);
  dsa::RankCall call{c.queries,    c.gallery,    distances.begin(), sizeof(T) == 8, stride, members.data(),
                     first.data(), count.data(), query_cams.data(), cams.data(),    most};
  call.ranks = expected_ranks.as<int64_t>(), call.found = expected_found.as<int64_t>();
  for (int q = 0; q < c.queries; ++q) dsa::rank_cpu(call, q);
  call.ranks = ranks.as<int64_t>(), call.found = found.as<int64_t>();
  char name[128];
  std::snprintf(name, sizeof name, "rank %d x %d, %d identities, %d cameras, %d levels, gap %d, %zu bytes",
                c.queries, c.gallery, c.identities, c.cameras, c.levels, c.gap, sizeof(T));
  check(dsa::rank_cuda(call, nullptr) == cudaSuccess, std::string("no launch: ") + name);
  check(found == expected_found, std::string("found of ") + name);
  check(ranks == expected_ranks, name);
}

void rank_cases() {
  Random random(4);
  std::vector<Case> cases = {
      {1, 1, 1, 1, 3},        // nothing but junk
      {3, 1, 1, 2, 3},        // a gallery of one
      {4, 257, 5, 3, 4},      // ties everywhere
      {2, 300, 1, 2, 1},      // all equal, one identity
      {3, 600, 1, 2, 1000},   // more positives than a turn takes
      {2, 1100, 2, 5, 6, 3},  // the same with ties, rows that begin anywhere
      {5, 1000, 40, 6, 100000},
  };
  for (int i = 0; i < cases::drawn; ++i) {
    cases.push_back({1 + random.below(4), 1 + random.below(700), 1 + random.below(20), 1 + random.below(4),
                     1 + random.below(60), random.below(4)});
  }
  for (const Case& c : cases) {
    run<float>(c, random);
    run<double>(c, random);
  }
}

const Suite kRank("rank", rank_cases);

}  // namespace
