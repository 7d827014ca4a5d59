// Which images an epoch shows, and in which batches: P identities with K images each, as the batch-hard
// triplet loss (section 4.1 of the paper) needs them.
//
// The rules:
//  - Each identity's images are shuffled and cut into groups of K. A last group that is not full is topped
//    up with further images of the identity: those outside of the group first, and no image twice before
//    each was drawn once.
//  - A shuffled list holds each identity once for each of its groups. A batch takes the next identities of
//    the list; one that it already has is put aside for the next batch, which begins with those put aside.
//  - If the list ends before a batch is full, other identities are drawn, each with a new group.
//  - Random numbers are Philox's with the seed as key and the counter (number, epoch, 0, 2^31), which no
//    augmentation (augment.h) uses. All are whole numbers, so an epoch is the same on every platform.
#pragma once

#include <cstdint>
#include <vector>

namespace dsareid {

struct SamplerCall {
  const int64_t* label;    // [image_count]: the identity of each image, 0..identity_count - 1
  int64_t image_count;     // less than 2^32
  int64_t identity_count;  // every identity has an image
  int64_t identities;      // P, 1..identity_count
  int64_t images;          // K, at least 1
  uint64_t seed;
  uint32_t epoch;
};

struct Epoch {
  std::vector<int64_t> index;   // [batches, P * K]: which image; those of an identity follow each other
  std::vector<int64_t> repeat;  // the same: how often that image was drawn before in this epoch
};

// Every image is drawn at least once. Throws std::invalid_argument if the call is not as above.
Epoch sample_epoch(const SamplerCall& call);

}  // namespace dsareid
