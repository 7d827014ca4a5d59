// The body: DensePose's 24 parts, their mirror twins, and the 13 and 8 groups they merge into.
// dsa_ext.parts has the same tables; a test keeps the two equal.
#pragma once

#if defined(__CUDACC_RTC__)  // NVRTC has no standard headers
using int8_t = signed char;
using int32_t = int;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
#if defined(_WIN64)
using int64_t = long long;
using uint64_t = unsigned long long;
#else
using int64_t = long;
using uint64_t = unsigned long;
#endif
#else
#include <cstdint>
#endif

#if !defined(DSA_HOST_DEVICE)
#if defined(__CUDACC__)
#define DSA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DSA_HOST_DEVICE inline
#endif
#endif

namespace dsa {

constexpr int kParts = 24;        // I = 1..24 in an IUV map; 0 is background
constexpr int kMirrorParts = 13;  // left and right merged
constexpr int kBodyParts = 8;     // front and back merged as well

struct Part {
  const char* name;
  uint8_t twin;          // I of the same part of the mirrored person
  uint8_t mirror_group;  // 0..12
  bool flip_u;           // in the mirrored image the chart runs the other way: u -> 1 - u
  bool flip_v;           // likewise v -> 1 - v
};

// Row I - 1 is part I. The flips are the closed form of DensePose's UV_symmetry_transforms.
constexpr Part kPart[kParts] = {
    {"torso back", 1, 0, false, true},
    {"torso front", 2, 1, false, true},
    {"right hand", 4, 2, true, false},
    {"left hand", 3, 2, true, false},
    {"left foot", 6, 3, true, false},
    {"right foot", 5, 3, true, false},
    {"right upper leg back", 8, 4, false, false},
    {"left upper leg back", 7, 4, false, false},
    {"right upper leg front", 10, 5, false, false},
    {"left upper leg front", 9, 5, false, false},
    {"right lower leg back", 12, 6, false, false},
    {"left lower leg back", 11, 6, false, false},
    {"right lower leg front", 14, 7, false, false},
    {"left lower leg front", 13, 7, false, false},
    {"left upper arm front", 16, 8, false, false},
    {"right upper arm front", 15, 8, false, false},
    {"left upper arm back", 18, 9, false, false},
    {"right upper arm back", 17, 9, false, false},
    {"left lower arm front", 20, 10, false, false},
    {"right lower arm front", 19, 10, false, false},
    {"left lower arm back", 22, 11, false, false},
    {"right lower arm back", 21, 11, false, false},
    {"head right", 24, 12, true, false},
    {"head left", 23, 12, true, false},
};

struct MirrorGroup {
  const char* name;
  uint8_t body_group;  // 0..7
};

constexpr MirrorGroup kMirrorGroup[kMirrorParts] = {
    {"torso back", 0},
    {"torso front", 0},
    {"hands", 1},
    {"feet", 2},
    {"upper legs back", 3},
    {"upper legs front", 3},
    {"lower legs back", 4},
    {"lower legs front", 4},
    {"upper arms front", 5},
    {"upper arms back", 5},
    {"lower arms front", 6},
    {"lower arms back", 6},
    {"head", 7},
};

constexpr const char* kBodyGroupName[kBodyParts] = {
    "torso", "hands", "feet", "upper legs", "lower legs", "upper arms", "lower arms", "head",
};

// Where the pixels of part I go: a part image, and whether U and V of its chart are reversed.
struct PartTarget {
  uint8_t image;  // index of the part image
  bool reverse_u, reverse_v;
};

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
// The second member of a left-right pair. If the pair's charts run in opposite directions, a merged
// warp may reverse this one.
constexpr bool second_of_pair(int part) { return kPart[part - 1].twin < part; }

// Which of `parts` (24, 13 or 8) images part I = 1..24 goes to, counted from 0.
constexpr int merged_index(int part, int parts) {
  const int mirror = kPart[part - 1].mirror_group;
  return parts == kParts ? part - 1 : parts == kMirrorParts ? mirror : kMirrorGroup[mirror].body_group;
}

// For `parts` part images, with `mirror` as in warp.h, in the mirrored image if `flip`.
constexpr PartTarget part_target(int part, int parts, bool mirror, bool flip) {
  const Part& seen = kPart[part - 1];
  const int as = flip ? seen.twin : part;
  const bool merged_reverse = mirror && kPart[as - 1].flip_u && second_of_pair(as);
  return {static_cast<uint8_t>(merged_index(as, parts)), (flip && seen.flip_u) != merged_reverse,
          flip && seen.flip_v};
}
#endif

}  // namespace dsa
