// The CPU library `dsa_ext._C`: the schemas, the CPU backend, and the part tables for Python.
#include <Python.h>

#include <atomic>

#include "../resize.h"
#include "calls.h"

STABLE_TORCH_LIBRARY(dsa_ext, m) {
  // source is [0] unless return_source; mean and std are empty or one a channel.
  m.def(
      "iuv_to_dsap(Tensor image, Tensor iuv, int size, int parts, bool mirror, ScalarType dtype, "
      "bool return_source, float[] fill, float[] mean, float[] std) -> (Tensor, Tensor)");
  m.def(
      "iuv_to_dsap_out(Tensor image, Tensor iuv, Tensor(a!) out, Tensor(b!)? source, bool mirror, "
      "float[] fill, float[] mean, float[] std) -> ()");
  m.def(
      "iuv_to_dsap_backward(Tensor grad, Tensor source, int height, int width, ScalarType dtype, "
      "float[] std) -> Tensor");
  m.def("merge_parts(Tensor features, Tensor? residual, bool front_back, bool relu) -> Tensor");
  m.def(
      "merge_parts_out(Tensor features, Tensor? residual, Tensor(a!) out, bool front_back, bool relu) "
      "-> ()");
  // The gradient of merge_parts; features and residual only where ReLU was applied.
  m.def("expand_parts(Tensor merged, Tensor? features, Tensor? residual, bool front_back) -> Tensor");
  // drawn: int32 [B, 8], what draw_augmentation returned; rows and columns: of resize_table.
  m.def(
      "assemble_batch_out(Tensor images, Tensor? iuv, Tensor index, Tensor? drawn, Tensor rows, "
      "Tensor columns, Tensor(a!) image, Tensor(b!)? dsap, bool augmented_dsap, bool mirror, float[] fill, "
      "float[] mean, float[] std) -> ()");
  m.def(
      "draw_augmentation(Tensor index, Tensor repeat, int seed, int epoch, int height, int width, int pad, "
      "float flip, float erase, float drop_person, float drop_part) -> Tensor");
  // ranks [T, M], M = the largest count rounded up to a multiple of 4; found [T].
  m.def(
      "count_ranks(Tensor distances, Tensor members, Tensor first, Tensor count, Tensor query_cams, "
      "Tensor gallery_cams) -> (Tensor ranks, Tensor found)");
}

namespace dsa {
namespace {

// Calls work(0) to work(count - 1) on torch's threads. Units differ in work, and threads in speed on a
// busy machine: each thread takes the next one.
template <class Work>
void for_each_unit(int64_t count, Work work) {
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t unit = next++; unit < count; unit = next++) work(unit);
  });
}

void iuv_to_dsap_out(const Tensor& image, const Tensor& iuv, Tensor out, std::optional<Tensor> source,
                     bool mirror, std::vector<double> fill, std::vector<double> mean,
                     std::vector<double> std) {
  const Channels channels(image.size(1), fill, mean, std);
  const WarpImages call = warp_images(image, iuv, out, source, channels, mirror);
  if (out.numel() == 0) return;
  // Units of one image each; a batch smaller than the pool is cut by parts instead.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t cuts = call.batch >= threads ? 1 : (threads + call.batch - 1) / call.batch;
  const int64_t parts = (call.parts + cuts - 1) / cuts;
  for_each_unit(call.batch * cuts, [&](int64_t unit) {
    const int first = unit % cuts * parts;
    const int last = std::min<int64_t>(first + parts, call.parts);
    if (first < last) warp_cpu(call, unit / cuts, first, last);
  });
}

Tensor iuv_to_dsap_backward(const Tensor& grad, const Tensor& source, int64_t height, int64_t width,
                            ScalarType dtype, std::vector<double> std) {
  STD_TORCH_CHECK(grad.dim() == 5, "grad must be [B, P, C, S, S]");
  Tensor image =
      torch::stable::new_empty(grad, {grad.size(0), grad.size(2), height, width}, std::make_optional(dtype));
  const Channels channels(grad.size(2), std::vector<double>(grad.size(2)), std, std);
  const WarpGradient call = warp_gradient(grad, source, image, channels);
  for_each_unit(call.batch, [&](int64_t image) { warp_gradient_cpu(call, image); });
  return image;
}

// Below this many elements a thread costs more than it brings.
constexpr int64_t kGrain = 32768;

void run_merge(const MergeCall& call, bool expand, const Tensor&) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, call.inner));
  const auto work = expand ? &expand_cpu : &merge_cpu;
  torch::stable::parallel_for(0, call.batch * call.table.groups, grain,
                              [&](int64_t begin, int64_t end) { work(call, begin, end); });
}

void assemble_batch_out(const Tensor& images, std::optional<Tensor> iuv, const Tensor& index,
                        std::optional<Tensor> drawn, const Tensor& rows, const Tensor& columns, Tensor image,
                        std::optional<Tensor> dsap, bool augmented_dsap, bool mirror,
                        std::vector<double> fill, std::vector<double> mean, std::vector<double> std) {
  BatchCall call =
      batch_call(images, iuv, rows, columns, image, dsap, augmented_dsap, mirror, fill, mean, std);
  call.index = sample_index(index, call), call.drawn = sample_drawn(drawn, call);
  check_table(call.rows, call.row_taps, call.height, call.stored_height, "rows");
  check_table(call.columns, call.column_taps, call.width, call.stored_width, "columns");
  check_index(call), check_drawn(call);
  const BatchTables tables(call);
  for_each_unit(call.batch, [&](int64_t sample) { assemble_cpu(call, tables, sample); });
}

Tensor draw_augmentations(const Tensor& index, const Tensor& repeat, int64_t seed, int64_t epoch,
                          int64_t height, int64_t width, int64_t pad, double flip, double erase,
                          double drop_person, double drop_part) {
  STD_TORCH_CHECK(index.dim() == 1 && index.is_contiguous() && index.scalar_type() == ScalarType::Long &&
                      repeat.dim() == 1 && repeat.size(0) == index.size(0) && repeat.is_contiguous() &&
                      repeat.scalar_type() == ScalarType::Long,
                  "index and repeat must be contiguous int64 [B]");
  const AugmentSettings settings{static_cast<int>(height),
                                 static_cast<int>(width),
                                 static_cast<int>(pad),
                                 flip,
                                 erase,
                                 drop_person,
                                 drop_part};
  Tensor out = torch::stable::new_empty(index, {index.size(0), 8}, std::make_optional(ScalarType::Int));
  auto* drawn = static_cast<Augmentation*>(out.mutable_data_ptr());
  const auto* image = static_cast<const int64_t*>(index.const_data_ptr());
  const auto* times = static_cast<const int64_t*>(repeat.const_data_ptr());
  for (int64_t i = 0; i < index.size(0); ++i) {
    STD_TORCH_CHECK(image[i] >= 0 && image[i] <= UINT32_MAX && times[i] >= 0 && times[i] <= UINT32_MAX,
                    "index and repeat must be 0..2^32 - 1, but sample ", i, " has ", image[i], " and ",
                    times[i]);
    drawn[i] = draw_augmentation(settings, static_cast<uint64_t>(seed), static_cast<uint32_t>(epoch),
                                 static_cast<uint32_t>(image[i]), static_cast<uint32_t>(times[i]));
  }
  return out;
}

void check_members(const RankCall& call) {
  for (int64_t i = 0; i < call.gallery; ++i) {
    STD_TORCH_CHECK(call.members[i] >= 0 && call.members[i] < call.gallery, "members must be 0..",
                    call.gallery - 1, ", found ", call.members[i]);
  }
  for (int64_t query = 0; query < call.queries; ++query) {
    const int64_t* own = call.members + call.first[query];
    for (int64_t i = 1; i < call.count[query]; ++i) {
      STD_TORCH_CHECK(own[i - 1] < own[i], "members must ascend inside an identity, found ", own[i - 1],
                      " before ", own[i]);
    }
  }
}

std::tuple<Tensor, Tensor> count_ranks(const Tensor& distances, const Tensor& members, const Tensor& first,
                                       const Tensor& count, const Tensor& query_cams,
                                       const Tensor& gallery_cams) {
  RankCall call = rank_call(distances, members, first, count, query_cams, gallery_cams);
  auto result = rank_outputs(call, call.first, call.count, count);
  check_members(call);
  for_each_unit(call.queries, [&](int64_t query) { rank_cpu(call, query); });
  return result;
}

constexpr auto iuv_to_dsap = &warp_functional<&iuv_to_dsap_out>;

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) {
  m.impl("iuv_to_dsap", TORCH_BOX(dsa::iuv_to_dsap));
  m.impl("iuv_to_dsap_out", TORCH_BOX(&dsa::iuv_to_dsap_out));
  m.impl("iuv_to_dsap_backward", TORCH_BOX(&dsa::iuv_to_dsap_backward));
  m.impl("merge_parts", TORCH_BOX(&dsa::merge_functional<&dsa::run_merge>));
  m.impl("merge_parts_out", TORCH_BOX(&dsa::merge_into<&dsa::run_merge>));
  m.impl("expand_parts", TORCH_BOX(&dsa::expand_functional<&dsa::run_merge>));
  m.impl("assemble_batch_out", TORCH_BOX(&dsa::assemble_batch_out));
  m.impl("draw_augmentation", TORCH_BOX(&dsa::draw_augmentations));
  m.impl("count_ranks", TORCH_BOX(&dsa::count_ranks));
}

// `dsa_ext._C.part_tables()`: csrc/parts.h as plain tuples, for dsa_ext.parts.
static PyObject* part_tables(PyObject*, PyObject*) {
  using namespace dsa;
  PyObject* parts = PyTuple_New(kParts);
  for (int i = 0; i < kParts; ++i) {
    const Part& part = kPart[i];
    PyTuple_SetItem(parts, i,
                    Py_BuildValue("(siiNN)", part.name, part.twin, part.mirror_group,
                                  PyBool_FromLong(part.flip_u), PyBool_FromLong(part.flip_v)));
  }
  PyObject* mirror = PyTuple_New(kMirrorParts);
  for (int i = 0; i < kMirrorParts; ++i) {
    PyTuple_SetItem(mirror, i, Py_BuildValue("(si)", kMirrorGroup[i].name, kMirrorGroup[i].body_group));
  }
  PyObject* body = PyTuple_New(kBodyParts);
  for (int i = 0; i < kBodyParts; ++i) PyTuple_SetItem(body, i, Py_BuildValue("s", kBodyGroupName[i]));
  return Py_BuildValue("(NNN)", parts, mirror, body);
}

// `dsa_ext._C.resize_table(in, out)`: csrc/resize.h's table of one dimension as (taps, its bytes).
static PyObject* resize_table(PyObject*, PyObject* arguments) {
  int in = 0, out = 0;
  if (!PyArg_ParseTuple(arguments, "ii", &in, &out)) return nullptr;
  if (in < 1 || out < 1) {
    PyErr_SetString(PyExc_ValueError, "both sizes must be at least 1");
    return nullptr;
  }
  const int taps = dsa::resize_taps(in, out);
  std::vector<int32_t> table(size_t(out) * (1 + taps));
  dsa::resize_table(in, out, taps, table.data());
  const auto* bytes = reinterpret_cast<const char*>(table.data());
  const auto count = static_cast<Py_ssize_t>(table.size() * sizeof(int32_t));
  return Py_BuildValue("(iN)", taps, PyBytes_FromStringAndSize(bytes, count));
}

PyMODINIT_FUNC PyInit__C() {
  static PyMethodDef methods[] = {
      {"part_tables", part_tables, METH_NOARGS, "The tables of csrc/parts.h."},
      {"resize_table", resize_table, METH_VARARGS, "The table of csrc/resize.h for one dimension."},
      {nullptr, nullptr, 0, nullptr},
  };
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
