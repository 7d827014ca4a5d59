// Python module dsareid._core: the compiled parts of the training system, without torch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "raster.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

void check_faces(const Array<int32_t>& faces, int64_t point_count) {
  const int32_t* index = faces.data();
  for (py::ssize_t i = 0; i < faces.size(); ++i) {
    if (index[i] < 0 || index[i] >= point_count) {
      throw std::invalid_argument("faces must hold indices of points, 0.." +
                                  std::to_string(point_count - 1) + ", found " +
                                  std::to_string(index[i]));
    }
  }
}

py::tuple rasterize(const Array<float>& points, const Array<int32_t>& faces, int height,
                    int width) {
  if (points.ndim() != 2 || points.shape(1) != 3) {
    throw std::invalid_argument("points must be [V, 3]: x, y, depth");
  }
  if (faces.ndim() != 2 || faces.shape(1) != 3) {
    throw std::invalid_argument("faces must be [F, 3]");
  }
  if (height < 1 || width < 1) throw std::invalid_argument("height and width must be at least 1");
  check_faces(faces, points.shape(0));
  py::array_t<int32_t> face({height, width});
  py::array_t<float> weights({height, width, 3});
  py::array_t<float> depth({height, width});
  const dsareid::RasterInput input{points.data(), faces.data(), faces.shape(0), height, width};
  const dsareid::RasterOutput output{face.mutable_data(), weights.mutable_data(),
                                     depth.mutable_data()};
  {
    py::gil_scoped_release unlocked;
    dsareid::rasterize(input, output);
  }
  return py::make_tuple(face, weights);
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled parts of dsareid that need no torch.";
  module.def("rasterize", &rasterize, py::arg("points"), py::arg("faces"), py::arg("height"),
             py::arg("width"),
             R"doc(Draw triangles into a z-buffer: the nearest face at each pixel centre.

Args:
    points: float32 [V, 3]: x and y in pixels from the top left corner, and depth (small = near).
    faces: int32 [F, 3]: indices into points, either winding.
    height, width: size of the picture in pixels.

Returns:
    face int32 [height, width], -1 where nothing is, and the barycentric weights of its three
    points, float32 [height, width, 3], 0 where nothing is.

Raises:
    ValueError: a wrong shape, a size below 1, or an index outside points.
)doc");
}
