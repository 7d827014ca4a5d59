// Python module dsareid.ground._core: the compiled parts of the training system, without torch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "prefetch.h"
#include "raster.h"
#include "sampler.h"

namespace py = pybind11;

namespace {

constexpr int64_t kMostPixels = 1 << 15;  // rows or columns of an image; as in dsa_ext

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

void check_faces(const Array<int32_t>& faces, int64_t point_count) {
  const int32_t* index = faces.data();
  for (py::ssize_t i = 0; i < faces.size(); ++i) {
    if (index[i] < 0 || index[i] >= point_count) {
      throw std::invalid_argument("faces must hold indices of points, 0.." + std::to_string(point_count - 1) +
                                  ", found " + std::to_string(index[i]));
    }
  }
}

py::tuple rasterize(const Array<float>& points, const Array<int32_t>& faces, int height, int width) {
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
  const dsareid::RasterOutput output{face.mutable_data(), weights.mutable_data(), depth.mutable_data()};
  {
    py::gil_scoped_release unlocked;
    dsareid::rasterize(input, output);
  }
  return py::make_tuple(face, weights);
}

// An array that takes over the memory of the vector.
py::array_t<int64_t> as_array(std::vector<int64_t>&& values, int64_t columns) {
  auto* kept = new std::vector<int64_t>(std::move(values));
  const py::capsule owner(kept, [](void* vector) { delete static_cast<std::vector<int64_t>*>(vector); });
  const auto rows = static_cast<py::ssize_t>(kept->size()) / columns;
  return py::array_t<int64_t>({rows, static_cast<py::ssize_t>(columns)}, kept->data(), owner);
}

py::tuple sample_epoch(const Array<int64_t>& label, int64_t identity_count, int64_t identities,
                       int64_t images, uint64_t seed, uint32_t epoch) {
  if (label.ndim() != 1) throw std::invalid_argument("label must be [N], the identity of each image");
  dsareid::Epoch sampled;
  {
    py::gil_scoped_release unlocked;
    sampled =
        dsareid::sample_epoch({label.data(), label.size(), identity_count, identities, images, seed, epoch});
  }
  const int64_t columns = identities * images;
  return py::make_tuple(as_array(std::move(sampled.index), columns),
                        as_array(std::move(sampled.repeat), columns));
}

// ---- the prefetcher ----

using Memory = std::pair<uintptr_t, int64_t>;                    // address and bytes
using SlotArguments = std::pair<Memory, std::optional<Memory>>;  // image, dsap
using FileArguments = std::tuple<int, int64_t, int64_t>;         // descriptor, bytes, mtime in nanoseconds
using Colours = std::array<double, dsa::kColours>;

template <class... Words>
void expect(bool right, const Words&... words) {
  if (right) return;
  std::string message;
  const auto text = [](const auto& word) {
    if constexpr (std::is_convertible_v<decltype(word), std::string>)
      return std::string(word);
    else
      return std::to_string(word);
  };
  ((message += text(words)), ...);
  throw std::invalid_argument(message);
}

// [N, h, w, 3] of uint8, each image contiguous; the bytes from one image to the next.
int64_t stored_stride(const py::array& stored, const char* name) {
  const bool bytes = py::isinstance<py::array_t<uint8_t, 0>>(stored);
  expect(bytes && stored.ndim() == 4 && stored.shape(3) == dsa::kColours, name,
         " must be uint8 [N, h, w, 3]");
  const int64_t height = stored.shape(1), width = stored.shape(2);
  expect(height >= 1 && height <= kMostPixels && width >= 1 && width <= kMostPixels, name, " must be 1..",
         kMostPixels, " pixels high and wide, not ", height, " x ", width);
  expect(stored.shape(0) >= 1 && stored.shape(0) <= UINT32_MAX, name, " must hold 1..2^32 - 1 images");
  expect(stored.strides(3) == 1 && (width == 1 || stored.strides(2) == dsa::kColours) &&
             (height == 1 || stored.strides(1) == dsa::kColours * width),
         name, " must be contiguous within each image");
  expect(height * width * dsa::kColours <= 1 << 30, name, ": an image has more than 2^30 bytes");
  return stored.strides(0);
}

// That the elements [shape] of these strides lie in the memory.
template <size_t kDimensions>
void check_memory(const char* name, const Memory& memory, const std::array<int64_t, kDimensions>& shape,
                  const std::array<int64_t, kDimensions>& stride, int64_t item_bytes) {
  const auto [address, bytes] = memory;
  expect(address != 0 && address % item_bytes == 0, name, ": ", address, " is no address of an element");
  int64_t last = 0;  // element
  for (size_t d = 0; d < kDimensions; ++d) {
    const int64_t steps = shape[d] - 1;
    expect(stride[d] >= 1 && (steps == 0 || stride[d] <= bytes / steps), name, " has ", bytes,
           " bytes, too few for a stride of ", stride[d]);
    last += steps * (steps == 0 ? 0 : stride[d]);
  }
  expect(last < bytes / item_bytes, name, " has ", bytes, " bytes, but its strides reach ",
         (last + 1) * item_bytes);
}

dsa::Type floating_type(const std::string& name) {
  if (name == "float16") return dsa::Type::float16;
  if (name == "bfloat16") return dsa::Type::bfloat16;
  expect(name == "float32", "type must be float32, float16 or bfloat16, not ", name);
  return dsa::Type::float32;
}

// A prefetcher and what it reads and writes, which lives as long as its threads do.
class KeptPrefetcher {
 public:
  KeptPrefetcher(py::object owners, const dsareid::PrefetchSettings& settings)
      : owners_(std::move(owners)), batch_(settings.call.batch), prefetcher_(settings) {}

  void submit(int slot, uint32_t epoch, const Array<int64_t>& index, const Array<int64_t>& repeat) {
    for (const auto& [name, array] : {std::pair("index", &index), std::pair("repeat", &repeat)}) {
      expect(array->ndim() == 1 && array->size() == batch_, name, " must be [", batch_,
             "], one for each sample");
    }
    prefetcher_.submit(slot, epoch, index.data(), repeat.data());
  }

  void wait(int slot) {
    while (!wait_a_moment(slot)) {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
  }

  void close() {
    {
      py::gil_scoped_release unlocked;
      prefetcher_.close();
    }
    owners_ = py::none();
  }

 private:
  bool wait_a_moment(int slot) {
    py::gil_scoped_release unlocked;
    return prefetcher_.wait(slot, std::chrono::milliseconds(200));
  }

  py::object owners_;
  int64_t batch_;
  dsareid::Prefetcher prefetcher_;  // the last, so that its threads end before the rest goes
};

void set_store(dsa::BatchCall& call, const py::array& images, const std::optional<py::array>& iuv) {
  call.images_stride = stored_stride(images, "images");
  call.images = static_cast<const uint8_t*>(images.data());
  call.images_stored = images.shape(0);
  call.stored_height = images.shape(1), call.stored_width = images.shape(2);
  if (!iuv) return;
  call.iuv_stride = stored_stride(*iuv, "iuv");
  call.iuv = static_cast<const uint8_t*>(iuv->data());
  for (int d = 0; d < 3; ++d) expect(iuv->shape(d) == images.shape(d), "iuv must be of images' shape");
}

void set_values(dsa::BatchCall& call, const Colours& fill, const std::optional<Colours>& mean,
                const std::optional<Colours>& std) {
  expect(mean.has_value() == std.has_value(), "mean and std must be given together");
  for (int c = 0; c < dsa::kColours; ++c) {
    call.fill[c] = static_cast<float>(fill[c]);
    if (mean) call.normalise[c] = {true, static_cast<float>((*mean)[c]), static_cast<float>((*std)[c])};
  }
}

std::vector<dsareid::SlotMemory> check_slots(const dsa::BatchCall& call,
                                             const std::vector<SlotArguments>& slots) {
  const int64_t item_bytes = call.type == dsa::Type::float32 ? 4 : 2, colours = dsa::kColours;
  const std::array<int64_t, 4> shape{call.batch, colours, call.height, call.width};
  const std::array<int64_t, 5> dsap_shape{call.batch, call.parts, colours, call.size, call.size};
  std::vector<dsareid::SlotMemory> result;
  for (const auto& [image, dsap] : slots) {
    expect(dsap.has_value() == (call.iuv != nullptr),
           "slots must have memory for dsap exactly where iuv is given");
    check_memory("image", image, shape, std::to_array(call.image_stride), item_bytes);
    if (dsap) check_memory("dsap", *dsap, dsap_shape, std::to_array(call.dsap_stride), item_bytes);
    result.push_back({reinterpret_cast<void*>(image.first), reinterpret_cast<void*>(dsap ? dsap->first : 0)});
  }
  return result;
}

void check_augmentation(const dsa::AugmentSettings& augment) {
  expect(augment.pad >= 0 && augment.pad <= 1 << 20, "pad must be 0..2^20, not ", augment.pad);
  for (const auto& [name, value] :
       {std::pair("flip", augment.flip), std::pair("erase", augment.erase),
        std::pair("drop_person", augment.drop_person), std::pair("drop_part", augment.drop_part)}) {
    expect(value >= 0 && value <= 1, name, " must be a probability, 0..1, not ", value);
  }
}

std::unique_ptr<KeptPrefetcher> make_prefetcher(
    const py::array& images, const std::optional<py::array>& iuv, const std::vector<FileArguments>& files,
    const std::vector<SlotArguments>& slots, const std::string& type, int batch, int height, int width,
    const std::array<int64_t, 4>& image_stride, int size, int parts,
    const std::array<int64_t, 5>& dsap_stride, bool mirror, bool augmented_dsap, const Colours& fill,
    const std::optional<Colours>& mean, const std::optional<Colours>& std, int pad, double flip, double erase,
    double drop_person, double drop_part, uint64_t seed, int threads, const py::object& owners) {
  dsareid::PrefetchSettings settings{};
  dsa::BatchCall& call = settings.call;
  set_store(call, images, iuv);
  set_values(call, fill, mean, std);
  expect(batch >= 1, "batch must be at least 1, not ", batch);
  expect(height >= 1 && height <= kMostPixels && width >= 1 && width <= kMostPixels,
         "height and width must be 1..", kMostPixels, ", not ", height, " x ", width);
  expect(size >= 1 && size <= 256, "size must be 1..256, not ", size);
  expect(parts == dsa::kParts || parts == dsa::kMirrorParts || parts == dsa::kBodyParts,
         "parts must be 24, 13 or 8, not ", parts);
  call.batch = batch, call.height = height, call.width = width, call.size = size, call.parts = parts;
  call.type = floating_type(type), call.mirror = mirror, call.augmented_dsap = augmented_dsap;
  std::copy(image_stride.begin(), image_stride.end(), call.image_stride);
  std::copy(dsap_stride.begin(), dsap_stride.end(), call.dsap_stride);
  settings.slots = check_slots(call, slots);
  settings.augment = {height, width, pad, flip, erase, drop_person, drop_part};
  check_augmentation(settings.augment);
  for (const auto& [descriptor, bytes, mtime_ns] : files) {
    settings.files.push_back({descriptor, bytes, mtime_ns});
  }
  settings.seed = seed, settings.threads = threads;
  return std::make_unique<KeptPrefetcher>(py::make_tuple(images, iuv, owners), settings);
}

void add_rasterize(py::module_& module) {
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

void add_sample_epoch(py::module_& module) {
  module.def("sample_epoch", &sample_epoch, py::arg("label").noconvert(), py::arg("identity_count"),
             py::kw_only(), py::arg("identities"), py::arg("images"), py::arg("seed"), py::arg("epoch"),
             R"doc(The batches of an epoch: P identities with K images each (csrc/core/sampler.h).

Args:
    label: int64 [N], contiguous, the identity of each image, 0..identity_count - 1.
    identity_count: how many identities there are; every one has an image.
    identities: P, 1..identity_count.
    images: K, at least 1.
    seed: 0..2**64 - 1.
    epoch: 0..2**32 - 1. An epoch depends on label, P, K, seed and epoch alone, on every platform.

Returns:
    index int64 [batches, P * K]: which image; the K of an identity follow each other, and every image
    occurs. repeat, the same: how often that image was drawn before in this epoch.

Raises:
    ValueError: an argument that is not as above.
    TypeError: label is not int64 or not contiguous, or a seed or epoch is not in its range.
)doc");
}

// SampleError with the attributes `position` and `index`.
void add_sample_error(py::module_& module) {
  py::exception<dsareid::SampleError> type(module, "SampleError", PyExc_RuntimeError);
  type.doc() = "A sample could not be assembled: `position` in its batch, `index` of its image.";
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const dsareid::SampleError& error) {
      const py::object type = py::module_::import("dsareid.ground._core").attr("SampleError");
      const py::object value = type(error.what());
      value.attr("position") = error.position, value.attr("index") = error.index;
      PyErr_SetObject(type.ptr(), value.ptr());
    }
  });
}

void add_prefetcher(py::module_& module) {
  py::class_<KeptPrefetcher>(module, "Prefetcher", R"doc(Assembles the next batches on threads of its own.

A slot is memory of one batch, which the caller owns and uses again. It is under way from `submit` to
`wait`: until then nobody else may touch it. Several may be under way; the one that was submitted first
is assembled first. The values are those of `dsa_ext.assemble_batch` with `dsa_ext.draw_augmentation`,
on any number of threads. In a forked child it can only be closed or forgotten.
)doc")
      .def(py::init(&make_prefetcher), py::kw_only(), py::arg("images"), py::arg("iuv"), py::arg("files"),
           py::arg("slots"), py::arg("type"), py::arg("batch"), py::arg("height"), py::arg("width"),
           py::arg("image_stride"), py::arg("size"), py::arg("parts"), py::arg("dsap_stride"),
           py::arg("mirror"), py::arg("augmented_dsap"), py::arg("fill"), py::arg("mean"), py::arg("std"),
           py::arg("pad"), py::arg("flip"), py::arg("erase"), py::arg("drop_person"), py::arg("drop_part"),
           py::arg("seed"), py::arg("threads"), py::arg("owners"), R"doc(
Args:
    images: uint8 [N, h, w, 3], an array or memory map, each image contiguous. Nothing is copied.
    iuv: uint8 [N, h, w, 3] = I, U, V, likewise; None: no part images.
    files: (descriptor, bytes, mtime in ns) of each file that is mapped, as os.fstat must find it before
        each sample that is read. The descriptors stay open as long as the prefetcher.
    slots: of each slot (address, bytes) of the image and (address, bytes) of the dsap, None without
        iuv: B samples (3, height, width) and (parts, 3, size, size) each.
    type: "float32", "float16" or "bfloat16", of both.
    batch: B.
    height, width: of the images the network takes.
    image_stride, dsap_stride: of every slot, 4 and 5 numbers, in elements; elements must not overlap.
    size, parts, mirror, augmented_dsap, fill, mean, std: as for dsa_ext.assemble_batch, fill for each
        channel; mean and std may be None.
    pad, flip, erase, drop_person, drop_part, seed: as for dsa_ext.draw_augmentation.
    threads: at least 1.
    owners: whatever must live as long as the prefetcher: the tensors that the slots are of, the store.

Raises:
    ValueError: an argument that is not as above, or memory that is too small for its strides.
    RuntimeError: the system has no more threads.
)doc")
      .def("submit", &KeptPrefetcher::submit, py::arg("slot"), py::arg("epoch"), py::arg("index").noconvert(),
           py::arg("repeat").noconvert(),
           R"doc(Begin a batch and return at once.

Args:
    slot: its number; it must not be under way.
    epoch: 0..2**32 - 1.
    index, repeat: int64 [B] of the sampler, contiguous. An index outside of the store is an error of `wait`.

Raises:
    ValueError: a slot, shape or repeat that is not as above.
    RuntimeError: it is closed, or belongs to another process.
)doc")
      .def("wait", &KeptPrefetcher::wait, py::arg("slot"),
           R"doc(Wait until the batch is done; other threads run, and Ctrl-C interrupts it.

Raises:
    SampleError: of the first sample of the batch that could not be assembled: its index is outside of
        the store, or a file changed. The slot can be submitted to again.
    ValueError: the slot is not under way.
    RuntimeError: it is closed, now or while waiting, or belongs to another process.
)doc")
      .def("close", &KeptPrefetcher::close,
           R"doc(Drop what has not begun, wait for the threads to end, and let go of `owners`.

Nothing touches the slots afterwards. Does nothing the second time, and in a forked child.
)doc");
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled parts of dsareid that need no torch.";
  add_rasterize(module);
  add_sample_epoch(module);
  add_sample_error(module);
  add_prefetcher(module);
}
