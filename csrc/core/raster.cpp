#include "raster.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsareid {
namespace {

struct Point {
  float x, y, depth;
};

Point load(const RasterInput& input, int32_t index) {
  const float* p = input.points + 3 * static_cast<int64_t>(index);
  return {p[0], p[1], p[2]};
}

// Twice the signed area of the triangle (a, b, (x, y)).
float edge(const Point& a, const Point& b, float x, float y) {
  return (a.x - x) * (b.y - y) - (a.y - y) * (b.x - x);
}

// First and last pixel whose centre lies in [low, high], clipped to [0, count).
// The clipping comes before the cast: a coordinate may be far outside the range of int.
int first_centre(float low, int count) {
  return static_cast<int>(std::clamp(std::ceil(low - 0.5f), 0.0f, static_cast<float>(count)));
}
int last_centre(float high, int count) {
  const float last = static_cast<float>(count - 1);
  return static_cast<int>(std::clamp(std::floor(high - 0.5f), -1.0f, last));
}

void draw_face(const RasterInput& input, const RasterOutput& output, int32_t face) {
  const int32_t* corner = input.faces + 3 * static_cast<int64_t>(face);
  const Point a = load(input, corner[0]), b = load(input, corner[1]), c = load(input, corner[2]);
  const float area = edge(a, b, c.x, c.y);
  if (!(std::abs(area) > 0.0f)) return;  // also if a coordinate is NaN
  const float inverse_area = 1.0f / area;
  const int row_begin = first_centre(std::min({a.y, b.y, c.y}), input.height);
  const int row_end = last_centre(std::max({a.y, b.y, c.y}), input.height);
  const int column_begin = first_centre(std::min({a.x, b.x, c.x}), input.width);
  const int column_end = last_centre(std::max({a.x, b.x, c.x}), input.width);
  for (int row = row_begin; row <= row_end; ++row) {
    for (int column = column_begin; column <= column_end; ++column) {
      const float x = column + 0.5f, y = row + 0.5f;
      const float wa = edge(b, c, x, y) * inverse_area;
      const float wb = edge(c, a, x, y) * inverse_area;
      const float wc = 1.0f - wa - wb;
      if (wa < 0.0f || wb < 0.0f || wc < 0.0f) continue;
      const float depth = wa * a.depth + wb * b.depth + wc * c.depth;
      const int64_t pixel = static_cast<int64_t>(row) * input.width + column;
      if (!(depth < output.depth[pixel])) continue;
      output.depth[pixel] = depth;
      output.face[pixel] = face;
      output.weights[3 * pixel] = wa;
      output.weights[3 * pixel + 1] = wb;
      output.weights[3 * pixel + 2] = wc;
    }
  }
}

}  // namespace

void rasterize(const RasterInput& input, const RasterOutput& output) {
  const int64_t pixels = static_cast<int64_t>(input.height) * input.width;
  std::fill_n(output.face, pixels, -1);
  std::fill_n(output.weights, 3 * pixels, 0.0f);
  std::fill_n(output.depth, pixels, std::numeric_limits<float>::infinity());
  for (int64_t face = 0; face < input.face_count; ++face) {
    draw_face(input, output, static_cast<int32_t>(face));
  }
}

}  // namespace dsareid
