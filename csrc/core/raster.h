// Triangle rasteriser of the synthetic data set: which face covers each pixel centre, and where.
#pragma once

#include <cstdint>

namespace dsareid {

struct RasterInput {
  const float* points;   // [point_count, 3]: x, y in pixels from the top left corner, depth
  const int32_t* faces;  // [face_count, 3]: indices into points, either winding
  int64_t face_count;
  int height;  // pixels
  int width;   // pixels
};

struct RasterOutput {
  int32_t* face;   // [height, width]: the nearest face, -1 where there is none
  float* weights;  // [height, width, 3]: barycentric weights of its three points; 0 where none
  float* depth;    // [height, width]: interpolated depth; +infinity where none
};

// The pixel (row, column) is sampled at its centre (column + 0.5, row + 0.5). The smallest depth
// wins, and of equal depths the face that comes first. Faces without area are skipped. Weights are
// linear on the screen, not perspective-correct: the faces are a few pixels wide.
void rasterize(const RasterInput& input, const RasterOutput& output);

}  // namespace dsareid
