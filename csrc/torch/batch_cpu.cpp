// Batch assembly on CPU tensors.
#include "batch.h"
#include "cpu.h"

namespace dsa {
namespace {

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

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) {
  m.impl("assemble_batch_out", TORCH_BOX(&dsa::assemble_batch_out));
}
