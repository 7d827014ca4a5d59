// Memory traffic of the typical ranking.
#include <algorithm>

#include "counts.h"
#include "rank.h"

using namespace cases;
using namespace counts;

namespace {

// About normal, with mean 0 and deviation 1.
float normal(Random& random) {
  float sum = -6;
  for (int k = 0; k < 12; ++k) sum += random.uniform();
  return sum;
}

// A tile of queries against Market-1501's gallery, with distances as a trained network has them between
// unit vectors: 0.8 +- 0.2 to the same person, 1.3 +- 0.08 to others.
void count_rank(const std::string& what, int queries, int gallery) {
  Random random(3);
  const int identities = 750, cameras = 6;
  std::vector<int64_t> id(gallery), query_id(queries);
  const Memory distances(size_t(queries) * gallery * 4), members(gallery * 8), cams(gallery * 8);
  const Memory first(queries * 8), count(queries * 8), query_cams(queries * 8);
  for (int i = 0; i < gallery; ++i) {
    id[i] = random.below(identities), members.as<int64_t>()[i] = i;
    cams.as<int64_t>()[i] = random.below(cameras);
  }
  int64_t* member = members.as<int64_t>();
  std::stable_sort(member, member + gallery, [&](int64_t a, int64_t b) { return id[a] < id[b]; });
  int64_t most = 1;
  for (int q = 0; q < queries; ++q) {
    const int own = random.below(identities);
    first.as<int64_t>()[q] = std::count_if(id.begin(), id.end(), [&](int64_t x) { return x < own; });
    count.as<int64_t>()[q] = std::count(id.begin(), id.end(), own);
    query_cams.as<int64_t>()[q] = random.below(cameras);
    most = std::max(most, count.as<int64_t>()[q]);
    for (int i = 0; i < gallery; ++i) {
      const float distance = normal(random) * (id[i] == own ? 0.2f : 0.08f) + (id[i] == own ? 0.8f : 1.3f);
      distances.as<float>()[int64_t(q) * gallery + i] = distance;
    }
  }
  most = (most + 3) / 4 * 4;  // as the torch library has it
  const Memory ranks(queries * most * 8), found(queries * 8);
  dsa::RankCall call{queries,
                     gallery,
                     distances.begin(),
                     false,
                     gallery,
                     member,
                     first.as<int64_t>(),
                     count.as<int64_t>(),
                     query_cams.as<int64_t>(),
                     cams.as<int64_t>(),
                     most,
                     ranks.as<int64_t>(),
                     found.as<int64_t>()};
  simt::forget_buffers();
  simt::watch("distances", distances.begin(), distances.bytes);
  simt::watch("ranks", ranks.begin(), ranks.bytes);
  simt::watch("found", found.begin(), found.bytes);
  simt::watch("members", members.begin(), members.bytes);
  simt::watch("gallery_cams", cams.begin(), cams.bytes);
  std::map<std::string, Sectors> touched;
  for (int q = 0; q < queries; ++q) {
    for (int64_t i = 0; i < count.as<int64_t>()[q]; ++i) {
      const int64_t* own = member + first.as<int64_t>()[q] + i;
      mark(touched["members"], own);
      mark(touched["gallery_cams"], cams.as<int64_t>() + *own);
    }
  }
  dsa::rank_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"members", int64_t(touched["members"].size())},
         {"gallery_cams", int64_t(touched["gallery_cams"].size())}});
}

void count_all(int images) { count_rank("rank, float32", images * 4, 15913); }

const counts::Suite kRank("rank", count_all);

}  // namespace
