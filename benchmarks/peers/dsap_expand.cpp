// The rival of warping on the fly: DSAP-images that were warped beforehand and lie in a store as uint8
// [N, 24, 3, S, S] are gathered and normalised to float32. One multiplication and one addition a value,
// which compilers make vectors of; no checks.
#include <cstdint>

extern "C" void dsap_expand(const uint8_t* stored, const int64_t* index, int first, int last, int cells,
                            const float* mean, const float* std, float* out) {
  for (int b = first; b < last; ++b) {
    for (int plane = 0; plane < 72; ++plane) {
      const float scale = 1.f / (255.f * std[plane % 3]), shift = -mean[plane % 3] / std[plane % 3];
      const uint8_t* in = stored + (index[b] * 72 + plane) * cells;
      float* to = out + (int64_t{b} * 72 + plane) * cells;
      for (int i = 0; i < cells; ++i) to[i] = in[i] * scale + shift;
    }
  }
}
