// Cases of part merging and of its gradient: the kernels against the CPU backend, bit for bit.
#include "cases.h"
#include "merge.h"
#include "simt.h"

using namespace cases;

namespace {

struct Case {
  bool front_back;
  int64_t batch, inner;
  Type type;
  bool residual, relu, aligned;

  std::string name(const char* what) const {
    char text[128];
    std::snprintf(text, sizeof text, "%s %s, %ld x %ld, %s%s%s%s", what, front_back ? "front_back" : "mirror",
                  long(batch), long(inner), name_of(type), residual ? ", residual" : "", relu ? ", relu" : "",
                  aligned ? "" : ", unaligned");
    return text;
  }
};

void run(const Case& c, Random& random) {
  const dsa::MergeTable table = dsa::merge_table(c.front_back);
  const size_t element = bytes_of(c.type), offset = c.aligned ? 0 : element;
  const size_t part_bytes = c.batch * table.parts * c.inner * element;
  const size_t group_bytes = c.batch * table.groups * c.inner * element;
  const Memory features(part_bytes, offset), residual(part_bytes, offset), merged(group_bytes, offset);
  for (const Memory* memory : {&features, &residual, &merged}) draw_all(random, c.type, *memory);

  dsa::MergeCall call{table, c.batch, c.inner, c.type};
  call.features = features.begin(), call.residual = c.residual ? residual.begin() : nullptr;
  call.relu = c.relu;
  Memory expected(group_bytes, offset), got(group_bytes, offset);
  call.out = expected.begin();
  dsa::merge_cpu(call, 0, c.batch * table.groups);
  call.out = got.begin();
  check(dsa::merge_cuda(call, nullptr) == cudaSuccess, c.name("no launch: merge"));
  check(got == expected, c.name("merge"));

  call.merged = merged.begin();
  if (!c.relu) call.features = call.residual = nullptr;
  Memory expected_parts(part_bytes, offset), got_parts(part_bytes, offset);
  call.out = expected_parts.begin();
  dsa::expand_cpu(call, 0, c.batch * table.groups);
  call.out = got_parts.begin();
  check(dsa::expand_cuda(call, nullptr) == cudaSuccess, c.name("no launch: expand"));
  check(got_parts == expected_parts, c.name("expand"));
}

void merge_cases() {
  Random random(3);
  for (const Type type : {Type::float16, Type::bfloat16, Type::float32}) {
    for (const int64_t inner : {1, 3, 8, 64, 100, 257, 1024}) {
      for (int form = 0; form < 8; ++form) {
        run({bool(random.below(2)), 1 + random.below(5), inner, type, bool(form & 1), bool(form & 2),
             bool(form & 4)},
            random);
      }
    }
  }
}

const Suite kMerge("merge", merge_cases);

}  // namespace
