// CPU backend of the ranking. A query's few positives are sorted; its row of distances is read
// once, and each one is placed among the positives by a binary search without branches. With k
// positives and G images that is k log k + G log k, whatever the distances are.
#include "rank.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace dsa {
namespace {

template <class T>
struct Image {
  T distance;
  int64_t index;  // in the gallery
};

template <class T>
bool stands_before(const Image<T>& a, const Image<T>& b) {
  return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

template <class T>
struct Members {
  std::vector<Image<T>> positives, junk;
};

template <class T>
Members<T> members_of(const RankCall& call, int64_t query, const T* row) {
  Members<T> own;
  const int64_t* member = call.members + call.first[query];
  for (int64_t i = 0; i < call.count[query]; ++i) {
    const int64_t index = member[i];
    if (call.gallery_cams[index] == call.query_cams[query]) {
      own.junk.push_back({row[index], index});
      continue;
    }
    // The sort must not see a NaN, which has no order.
    const T distance = row[index] == row[index] ? row[index] : std::numeric_limits<T>::infinity();
    own.positives.push_back({distance, index});
  }
  std::sort(own.positives.begin(), own.positives.end(), stands_before<T>);
  return own;
}

// Places gallery images, in ascending order, among the sorted positives of a query.
template <class T>
class Places {
 public:
  // There is at least one positive.
  explicit Places(const std::vector<Image<T>>& positives) {
    // A power of two of distances, so that every search takes the same steps.
    while (size_ <= static_cast<int32_t>(positives.size())) size_ *= 2;
    distance_.assign(size_, std::numeric_limits<T>::infinity());
    index_.assign(size_ + 1, -1);
    passed_.assign(size_, 0);
    histogram_.assign(size_ + 1, 0);
    last_ = positives.back().distance;
    for (size_t i = 0; i < positives.size(); ++i) {
      distance_[i] = positives[i].distance;
      index_[i] = positives[i].index;
    }
  }

  // Counts the images `index`, `index` + 1, ... Each step runs over all of them before the next:
  // the searches are independent and overlap.
  template <int32_t kImages>
  void add(const T* distances, int64_t index) {
    int32_t behind_all = 0;  // as most of the gallery is, if the features are good
    for (int32_t i = 0; i < kImages; ++i) behind_all += distances[i] > last_;
    if (behind_all == kImages) return;

    int32_t place[kImages] = {};
    for (int32_t half = size_ / 2; half; half /= 2) {
      for (int32_t i = 0; i < kImages; ++i) {
        const bool farther = !(distances[i] <= distance_[place[i] + half - 1]);
        place[i] += half & -static_cast<int32_t>(farther);
      }
    }
    for (int32_t i = 0; i < kImages; ++i) {
      ++histogram_[place[i] + ties_before(place[i], distances[i], index + i)];
    }
  }

  // histogram()[a]: how many images stand behind exactly a positives, or are the a-th. Images behind all
  // positives are not all counted.
  std::vector<int64_t>& histogram() { return histogram_; }

 private:
  // How many positives are as far away as an image at `place`, and not behind it. They form a run that
  // begins there, in ascending order of index, and the images come in that order too: a positive of the
  // run is passed when it is itself the image.
  int32_t ties_before(int32_t place, T distance, int64_t index) {
    if (distance_[place] != distance) return 0;
    int32_t& passed = passed_[place];
    passed += index_[place + passed] == index;
    return passed;
  }

  int32_t size_ = 1;
  T last_;                          // distance of the farthest positive
  std::vector<T> distance_;         // [size_] of the positives, then infinity
  std::vector<int64_t> index_;      // [size_ + 1] of the positives, then -1
  std::vector<int32_t> passed_;     // [size_], at the beginning of each run
  std::vector<int64_t> histogram_;  // [size_ + 1]
};

template <class T>
void rank(const RankCall& call, int64_t query) {
  const T* row = static_cast<const T*>(call.distances) + query * call.row_stride;
  const auto [positives, junk] = members_of(call, query, row);
  const int64_t found = positives.size();
  int64_t* ranks = call.ranks + query * call.most;
  call.found[query] = found;
  std::fill(ranks + found, ranks + call.most, call.gallery);
  if (found == 0) return;

  constexpr int32_t kTogether = 32;
  Places<T> places(positives);
  int64_t index = 0;
  for (; index + kTogether <= call.gallery; index += kTogether) {
    places.template add<kTogether>(row + index, index);
  }
  for (; index < call.gallery; ++index) places.template add<1>(row + index, index);

  std::vector<int64_t>& histogram = places.histogram();
  for (const Image<T>& image : junk) {
    const auto behind = std::upper_bound(positives.begin(), positives.end(), image, stands_before<T>);
    --histogram[behind - positives.begin()];
  }
  int64_t before = 0;
  for (int64_t i = 0; i < found; ++i) ranks[i] = before += histogram[i];
}

}  // namespace

void rank_cpu(const RankCall& call, int64_t query) {
  call.is_double ? rank<double>(call, query) : rank<float>(call, query);
}

}  // namespace dsa
