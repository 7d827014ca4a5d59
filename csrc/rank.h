// Ranking: at which place of a query's rank list its positives stand, by counting, without a sort.
//
// The rules, exact on every backend:
//  - A gallery image of the query's identity is junk if the query's camera took it, and a positive
//    otherwise. Junk is removed; all other images, positives among them, are kept.
//  - The rank of a positive (from 0) is the number of kept images that stand before it: those of
//    smaller distance, and those of equal distance and smaller gallery index.
//  - Distances may be infinite. They must not be NaN: memory stays safe then, but the ranks of the
//    row are arbitrary numbers in 0..gallery.
#pragma once

#include <cstdint>

namespace dsa {

// A tile of queries against the whole gallery. The caller makes sure that members are gallery indices
// and that first and count stay inside members; the CUDA backend skips members that are no indices.
struct RankCall {
  int64_t queries;  // rows of the tile
  int64_t gallery;  // images, fewer than 2^30

  const void* distances;  // [queries, gallery], unit stride along the gallery; only read
  bool is_double;         // float64, else float32
  int64_t row_stride;     // elements from one query's row to the next

  const int64_t* members;       // [gallery] indices grouped by identity, ascending within each
  const int64_t* first;         // [queries]: the query's identity is members[first] ...
  const int64_t* count;         // [queries]: ... to members[first + count - 1]; may be 0
  const int64_t* query_cams;    // [queries]
  const int64_t* gallery_cams;  // [gallery]

  int64_t most;    // columns of ranks, at least the largest count; a multiple of 4 fills whole sectors
  int64_t* ranks;  // [queries, most]: of the query's positives, ascending, then `gallery` as padding
  int64_t* found;  // [queries]: how many positives the query has
};

// Unit of work of the CPU backend: one query. Units touch disjoint output.
void rank_cpu(const RankCall& call, int64_t query);

// `stream` is a cudaStream_t. The return value is a cudaError_t (0 is success).
int rank_cuda(const RankCall& call, void* stream);

}  // namespace dsa
