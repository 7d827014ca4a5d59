// The least a C++ programmer could write for batch assembly where a store of uint8 [h, w, 3] is enlarged to
// float32 [3, H, W] and [24, 3, S, S]: no checks, no threads, one type, one layout. The floor that
// batch.py compares with. `drawn` is int32 [batch, 8] as dsa_ext.draw_augmentation returns it.
#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

const int kTwin[25] = {0,  1,  2,  4,  3,  6,  5,  8,  7,  10, 9,  12, 11,
                       14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23};

// Two source pixels and their weights of 2^22, as Pillow has them for enlargements.
struct Tap {
  int first, second, a, b;
};
std::vector<Tap> taps(int in, int out) {
  std::vector<Tap> result(out);
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * in / out - 0.5;
    const int first = static_cast<int>(centre + 1) - 1;
    const double right = centre - first;
    const int a = int((1 - right) * (1 << 22) + 0.5), b = int(right * (1 << 22) + 0.5);
    Tap& tap = result[i] = {first, first + 1, a, b};
    if (first < 0) tap = {0, 0, 1 << 22, 0};
    if (first + 1 >= in) tap = {in - 1, in - 1, 1 << 22, 0};
  }
  return result;
}

}  // namespace

extern "C" void batch_minimal(const uint8_t* images, const uint8_t* iuv, const int64_t* index,
                              const int32_t* drawn, int batch, int h, int w, int H, int W, int S,
                              const float* mean, const float* std, float* image, float* dsap) {
  static float value[3][256];
  static int cell[256];
  for (int i = 0; i < 768; ++i) value[i / 256][i % 256] = (i % 256 / 255.f - mean[i / 256]) / std[i / 256];
  for (int q = 0; q < 256; ++q) cell[q] = std::min(q * S / 255, S - 1);
  const std::vector<Tap> rows = taps(h, H), columns = taps(w, W);
  std::vector<uint8_t> wide(3 * h * W), row(3 * W);
  for (int b = 0; b < batch; ++b, image += 3 * H * W, dsap += 72 * S * S) {
    const int32_t* d = drawn + 8 * b;
    const int dy = d[0], dx = d[1], flip = d[2], top = d[3], left = d[4], bottom = d[5], right = d[6];
    const uint8_t* pixels = images + index[b] * 3 * h * w;
    const uint8_t* chart = iuv + index[b] * 3 * h * w;
    for (int y = 0; y < h; ++y) {
      for (int x = 0; x < W; ++x) {
        const Tap& tap = columns[x];
        for (int c = 0; c < 3; ++c) {
          const uint8_t* in = pixels + 3 * w * y + c;
          const int sum = tap.a * in[3 * tap.first] + tap.b * in[3 * tap.second];
          wide[3 * (W * y + x) + c] = (sum + (1 << 21)) >> 22;
        }
      }
    }
    for (int y = 0; y < H; ++y) {
      float* out = image + y * W;
      const int from = y + dy;
      const bool inside = from >= 0 && from < H;
      if (inside) {
        const Tap& tap = rows[from];
        const uint8_t *one = &wide[3 * W * tap.first], *two = &wide[3 * W * tap.second];
        for (int i = 0; i < 3 * W; ++i) row[i] = (tap.a * one[i] + tap.b * two[i] + (1 << 21)) >> 22;
      }
      for (int x = 0; x < W; ++x) {
        const int at = (flip ? W - 1 - x : x) + dx;
        const bool shown = inside && at >= 0 && at < W && !(y >= top && y < bottom && x >= left && x < right);
        for (int c = 0; c < 3; ++c) out[c * H * W + x] = shown ? value[c][row[3 * at + c]] : 0.f;
      }
    }
    std::fill_n(dsap, 72 * S * S, 0.f);
    for (int y = 0; y < h; ++y) {
      const int vy = (2 * y + 1) * H / (2 * h) - dy;
      if (vy < 0 || vy >= H) continue;
      for (int k = 0; k < w; ++k) {
        const int x = flip ? w - 1 - k : k;
        const uint8_t* p = chart + 3 * (w * y + x);
        int part = p[0], u = p[1], v = p[2];
        if (!part || !(d[7] >> part & 1)) continue;
        int vx = (2 * x + 1) * W / (2 * w) - dx;
        if (flip) vx = W - 1 - vx;
        if (vx < 0 || vx >= W || (vy >= top && vy < bottom && vx >= left && vx < right)) continue;
        if (flip) {
          if ((part >= 3 && part <= 6) || part >= 23) u = 255 - u;
          if (part <= 2) v = 255 - v;
          part = kTwin[part];
        }
        float* to = dsap + (part - 1) * 3 * S * S + cell[u] * S + cell[v];
        for (int c = 0; c < 3; ++c) to[c * S * S] = value[c][pixels[3 * (w * y + x) + c]];
      }
    }
  }
}
