#include "sampler.h"

#include <algorithm>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "../philox.h"

namespace dsareid {
namespace {

constexpr uint32_t kSamplerSlot = 1u << 31;  // of the counter; augment.cpp's slots are small

class Stream {
 public:
  Stream(uint64_t seed, uint32_t epoch) : seed_(seed), epoch_(epoch) {}

  // A whole number in [0, n).
  int64_t below(int64_t n) {
    const uint32_t word = number_ % 4;
    if (word == 0) words_ = dsa::philox(seed_, static_cast<uint32_t>(number_ / 4), epoch_, 0, kSamplerSlot);
    ++number_;
    return dsa::below(words_.word[word], static_cast<uint32_t>(n));
  }

  // Appends `count` entries of the pool to `to`: none twice before each was drawn once. The pool's order
  // becomes that of the last round.
  void draw(std::span<int64_t> pool, int64_t count, std::vector<int64_t>& to) {
    const int64_t size = static_cast<int64_t>(pool.size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = i % size;
      std::swap(pool[at], pool[at + below(size - at)]);
      to.push_back(pool[at]);
    }
  }

 private:
  uint64_t seed_;
  uint32_t epoch_;
  uint64_t number_ = 0;  // how many were drawn
  dsa::Words words_{};
};

struct Identity {
  std::span<int64_t> members;
  int64_t next_group = 0;   // where in groups_ its next group lies
  int64_t groups_left = 0;  // how many groups are left
  int64_t put_aside = 0;    // how often it waits for a later batch
  int64_t last_batch = -1;  // the last batch that it is in
};

class Sampler {
 public:
  explicit Sampler(const SamplerCall& call)
      : call_(call),
        stream_(call.seed, call.epoch),
        members_(call.image_count),
        identity_(call.identity_count),
        drawn_(call.image_count) {
    find_members();
    for (int64_t who = 0; who < call.identity_count; ++who) {
      make_groups(identity_[who]);
      order_.insert(order_.end(), identity_[who].groups_left, who);
    }
    list_.reserve(order_.size());
    stream_.draw(order_, static_cast<int64_t>(order_.size()), list_);
  }

  Epoch epoch() {
    for (int64_t batch = 0; next_ < list_.size() || !aside_.empty(); ++batch) add(batch);
    return std::move(epoch_);
  }

 private:
  void find_members() {
    std::vector<int64_t> first(call_.identity_count + 1);
    for (int64_t i = 0; i < call_.image_count; ++i) ++first[call_.label[i] + 1];
    for (int64_t who = 0; who < call_.identity_count; ++who) {
      first[who + 1] += first[who];
      identity_[who].members = std::span(members_).subspan(first[who], first[who + 1] - first[who]);
    }
    for (int64_t i = 0; i < call_.image_count; ++i) members_[first[call_.label[i]]++] = i;
  }

  void make_groups(Identity& identity) {
    const std::span members = identity.members;
    const int64_t count = static_cast<int64_t>(members.size()), last = count % call_.images;
    identity.next_group = static_cast<int64_t>(groups_.size());
    stream_.draw(members, count, groups_);
    if (last != 0) {
      const bool alone = count == last;  // no other group to take images from
      stream_.draw(alone ? members : members.first(count - last), call_.images - last, groups_);
    }
    identity.groups_left = (static_cast<int64_t>(groups_.size()) - identity.next_group) / call_.images;
  }

  void add(int64_t batch) {
    int64_t room = call_.identities;
    const size_t waiting = std::min(aside_.size(), static_cast<size_t>(room));
    for (size_t i = 0; i < waiting; ++i, --room) {
      --identity_[aside_[i]].put_aside;
      choose(identity_[aside_[i]], batch);
    }
    std::erase_if(aside_, [&](int64_t who) { return identity_[who].put_aside == 0; });
    while (room > 0 && next_ < list_.size()) {
      const int64_t who = list_[next_++];
      if (identity_[who].last_batch != batch) {
        choose(identity_[who], batch), --room;
      } else if (identity_[who].put_aside++ == 0) {
        aside_.push_back(who);
      }
    }
    while (room > 0) {
      Identity& identity = identity_[stream_.below(call_.identity_count)];
      if (identity.last_batch != batch) choose(identity, batch), --room;
    }
  }

  void choose(Identity& identity, int64_t batch) {
    identity.last_batch = batch;
    const size_t begin = epoch_.index.size();
    if (identity.groups_left > 0) {
      const auto group = groups_.begin() + identity.next_group;
      epoch_.index.insert(epoch_.index.end(), group, group + call_.images);
      identity.next_group += call_.images, --identity.groups_left;
    } else {
      stream_.draw(identity.members, call_.images, epoch_.index);
    }
    for (size_t i = begin; i < epoch_.index.size(); ++i) {
      epoch_.repeat.push_back(drawn_[epoch_.index[i]]++);
    }
  }

  const SamplerCall& call_;
  Stream stream_;
  std::vector<int64_t> members_;  // images, by identity
  std::vector<Identity> identity_;
  std::vector<int64_t> groups_;        // of K images, by identity
  std::vector<int64_t> order_, list_;  // an identity for each group: before and after the shuffle
  size_t next_ = 0;                    // in list_
  std::vector<int64_t> aside_;         // identities that wait for the next batch, each once
  std::vector<int64_t> drawn_;         // [image_count]: how often each was drawn
  Epoch epoch_;
};

void check(const SamplerCall& call) {
  const auto fail = [](const std::string& what) { throw std::invalid_argument(what); };
  if (call.image_count < 1 || call.image_count > UINT32_MAX) {
    fail("there must be 1..2^32 - 1 images, not " + std::to_string(call.image_count));
  }
  if (call.identities < 1 || call.identities > call.identity_count) {
    fail("identities must be 1.." + std::to_string(call.identity_count) + ", not " +
         std::to_string(call.identities));
  }
  if (call.images < 1 || call.images > UINT32_MAX) {
    fail("images must be 1..2^32 - 1, not " + std::to_string(call.images));
  }
  std::vector<bool> seen(call.identity_count);
  for (int64_t i = 0; i < call.image_count; ++i) {
    if (call.label[i] < 0 || call.label[i] >= call.identity_count) {
      fail("label must hold identities, 0.." + std::to_string(call.identity_count - 1) + ", found " +
           std::to_string(call.label[i]));
    }
    seen[call.label[i]] = true;
  }
  const auto missing = std::find(seen.begin(), seen.end(), false);
  if (missing != seen.end()) {
    fail("identity " + std::to_string(missing - seen.begin()) + " has no image");
  }
}

}  // namespace

Epoch sample_epoch(const SamplerCall& call) {
  check(call);
  return Sampler(call).epoch();
}

}  // namespace dsareid
