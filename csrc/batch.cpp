// CPU backend of batch assembly: a sample at a time, so that its stored pixels are read from memory once
// and each output element is written while it is in cache.
//
// The image goes through Pillow's two passes: the rows that the view needs are resized along x into a
// buffer of bytes, then each output row is a weighted sum of those, looked up in the table of values and
// written. The DSAP-images are filled; then one loop scatters the stored pixels into them, in the view's
// raster order (backwards within a row if it is flipped), so that the last pixel wins by itself.
#include "batch.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "clones.h"
#include "fill.h"
#include "iuv.h"

namespace dsa {

// The rounding of a weighted sum of narrow weights.
constexpr uint16_t kNarrowHalf = 1 << (kNarrowBits - 1);

// A function with clones of its own: inlined, its vectors would be split up for the oldest processors.
DSA_CLONES void resize_by_runs(const std::vector<ResizeRun>& runs, const uint8_t* in,
                               uint8_t* __restrict out) {
  for (const ResizeRun& run : runs) {
#if defined(__GNUC__) && !defined(__clang__)  // other compilers have no shuffle by a variable
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    typedef uint16_t Shorts __attribute__((vector_size(32)));
    Bytes bytes, first, second;
    Shorts a, b;
    std::memcpy(&bytes, in + run.in, 16);
    std::memcpy(&first, run.first, 16), std::memcpy(&second, run.second, 16);
    std::memcpy(&a, run.a, 32), std::memcpy(&b, run.b, 32);
    const Shorts sum = __builtin_convertvector(__builtin_shuffle(bytes, first), Shorts) * a +
                       __builtin_convertvector(__builtin_shuffle(bytes, second), Shorts) * b + kNarrowHalf;
    bytes = __builtin_convertvector(sum >> kNarrowBits, Bytes);
    std::memcpy(out + run.out, &bytes, 16);
#else
    for (int i = 0; i < 16; ++i) {
      const int sum = in[run.in + run.first[i]] * run.a[i] + in[run.in + run.second[i]] * run.b[i];
      out[run.out + i] = static_cast<uint8_t>((sum + kNarrowHalf) >> kNarrowBits);
    }
#endif
  }
}

namespace {

// ---- the image ----

// out[i] = the weighted sum of in[taps] bytes that lie `step` apart, for `count` bytes side by side.
template <int kTaps>
DSA_FLAT void sum_rows(const uint8_t* in, ptrdiff_t step, const int32_t* weight, int taps, int64_t count,
                       uint8_t* __restrict out) {
  if constexpr (kTaps != 0) taps = kTaps;
  for (int64_t i = 0; i < count; ++i) {
    int sum = 0;
    for (int tap = 0; tap < taps; ++tap) sum += weight[tap] * in[i + tap * step];
    out[i] = resize_round(sum);
  }
}

// The same for two taps with narrow weights.
DSA_FLAT void sum_rows_narrow(const uint8_t* in, ptrdiff_t step, const int32_t* weight, int64_t count,
                              uint8_t* __restrict out) {
  const uint16_t a = static_cast<uint16_t>(weight[0] >> (kWeightBits - kNarrowBits));
  const uint16_t b = static_cast<uint16_t>(weight[1] >> (kWeightBits - kNarrowBits));
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t sum = static_cast<uint16_t>(a * in[i] + b * in[i + step] + kNarrowHalf);
    out[i] = static_cast<uint8_t>(sum >> kNarrowBits);
  }
}

// One stored row resized along x; from right to left if the view is flipped.
template <int kTaps, bool kFlip>
DSA_FLAT void resize_columns(const BatchCall& call, const uint8_t* in, uint8_t* __restrict out) {
  const int taps = kTaps != 0 ? kTaps : call.column_taps;
  const int32_t* table = call.columns;
  if (kFlip) out += (call.width - 1) * kColours;
  for (int x = 0; x < call.width; ++x, table += 1 + taps, out += kFlip ? -kColours : kColours) {
    const uint8_t* pixel = in + table[0] * kColours;
    int sum[kColours] = {};
    for (int tap = 0; tap < taps; ++tap, pixel += kColours) {
      for (int c = 0; c < kColours; ++c) sum[c] += table[1 + tap] * pixel[c];
    }
    for (int c = 0; c < kColours; ++c) out[c] = resize_round(sum[c]);
  }
}

template <int kTaps>
DSA_FLAT void resize_columns(const BatchCall& call, bool flip, const uint8_t* in, uint8_t* out) {
  flip ? resize_columns<kTaps, true>(call, in, out) : resize_columns<kTaps, false>(call, in, out);
}

// A sample's stored rows, resized along x and flipped as they are asked for, in ascending order.
struct WideRows {
  const BatchCall& call;
  const std::vector<ResizeRun>& runs;
  const uint8_t* stored;
  bool flip;
  int64_t row_bytes;
  uint8_t* buffer = nullptr;  // null if the rows are the stored ones
  int done = 0;               // rows before this one are in the buffer, or are not needed

  WideRows(const BatchCall& call_, const BatchTables& tables, const uint8_t* stored_, bool flip_,
           std::vector<uint8_t>& memory)
      : call(call_),
        runs(tables.columns[flip_]),
        stored(stored_),
        flip(flip_),
        row_bytes(int64_t{kColours} * call_.width) {
    if (call.stored_width == call.width && !flip) return;
    memory.resize(call.stored_height * row_bytes);
    buffer = memory.data();
  }

  // The rows [first, first + row_taps), one after the other.
  DSA_FLAT const uint8_t* get(int first) {
    if (!buffer) return stored + first * row_bytes;
    for (done = std::max(done, first); done < first + call.row_taps; ++done) {
      const uint8_t* in = stored + int64_t{kColours} * call.stored_width * done;
      uint8_t* out = buffer + done * row_bytes;
      if (!runs.empty()) {
        resize_by_runs(runs, in, out);
      } else if (call.column_taps == 2) {
        resize_columns<2>(call, flip, in, out);
      } else {
        resize_columns<0>(call, flip, in, out);
      }
    }
    return buffer + first * row_bytes;
  }
};

// Row `from` of the resized image, made in `memory` unless it lies somewhere already.
DSA_FLAT const uint8_t* resized_row(const BatchCall& call, bool narrow, WideRows& wide, int from,
                                    std::vector<uint8_t>& memory) {
  const int32_t* table = call.rows + from * (1 + call.row_taps);
  const uint8_t* rows = wide.get(table[0]);
  if (call.row_taps == 1) return rows;
  uint8_t* out = memory.data();
  if (call.row_taps != 2) {
    sum_rows<0>(rows, wide.row_bytes, table + 1, call.row_taps, wide.row_bytes, out);
  } else if (narrow) {
    sum_rows_narrow(rows, wide.row_bytes, table + 1, wide.row_bytes, out);
  } else {
    sum_rows<2>(rows, wide.row_bytes, table + 1, 2, wide.row_bytes, out);
  }
  return out;
}

// An output row: where its first element lies, and how far apart its columns and channels are.
template <class Out>
struct Row {
  Out* first;
  int64_t column, channel;

  DSA_FLAT void fill(int begin, int end, const Out* value) const {
    for (int c = 0; c < kColours; ++c) {
      for (int x = begin; x < end; ++x) first[x * column + c * channel] = value[c];
    }
  }

  // Pixels begin..end - 1 from bytes [end - begin, 3].
  template <int64_t kColumn, int64_t kChannel>
  DSA_FLAT void write(int begin, int end, const uint8_t* pixel, const Out* value) const {
    const int64_t step = kColumn ? kColumn : column, plane = kChannel ? kChannel : channel;
    Out* to = first + begin * step;
    for (int x = begin; x < end; ++x, pixel += kColours, to += step) {
      for (int c = 0; c < kColours; ++c) to[c * plane] = value[c * 256 + pixel[c]];
    }
  }
  DSA_FLAT void write(int begin, int end, const uint8_t* pixel, const Out* value) const {
    if (column == 1) return write<1, 0>(begin, end, pixel, value);
    if (column == kColours && channel == 1) return write<kColours, 1>(begin, end, pixel, value);
    write<0, 0>(begin, end, pixel, value);
  }
};

template <class Out>
DSA_FLAT void assemble_image(const BatchCall& call, const BatchTables& tables, const Augmentation& a,
                             const uint8_t* stored, const Out* value, const Out* fill, Out* out) {
  static thread_local std::vector<uint8_t> wide_memory, row_memory;
  WideRows wide(call, tables, stored, a.flip != 0, wide_memory);
  row_memory.resize(wide.row_bytes);
  // The wide rows begin `shift` columns before the view, and show in its columns [begin, end).
  const int shift = a.flip ? -a.shift_x : a.shift_x;
  const int begin = std::clamp(-shift, 0, call.width), end = std::clamp(call.width - shift, 0, call.width);
  for (int y = 0; y < call.height; ++y) {
    const Row<Out> row{out + y * call.image_stride[2], call.image_stride[3], call.image_stride[1]};
    const int from = y + a.shift_y;
    if (from < 0 || from >= call.height || begin >= end) {
      row.fill(0, call.width, fill);
      continue;
    }
    const uint8_t* pixels = resized_row(call, tables.narrow_rows, wide, from, row_memory);
    row.fill(0, begin, fill);
    row.write(begin, end, pixels + (begin + shift) * kColours, value);
    row.fill(end, call.width, fill);
    if (y >= a.top && y < a.bottom) row.fill(a.left, a.right, fill);
  }
}

// ---- the DSAP-images ----

// The tables for one sample, without the parts that it drops.
struct Targets {
  int64_t part[kParts + 1];
  const uint8_t *turn_u, *turn_v;
  const int64_t *row, *column;

  Targets(const BatchTables& tables, const Augmentation& a)
      : turn_u(tables.turn_u[a.flip != 0]),
        turn_v(tables.turn_v[a.flip != 0]),
        row(tables.row),
        column(tables.column) {
    for (int i = 0; i <= kParts; ++i) part[i] = a.keep >> i & 1 ? tables.part[a.flip != 0][i] : -1;
  }
};

DSA_FLAT bool eight_are_background(const uint8_t* iuv) {
  uint64_t word[3];
  std::memcpy(word, iuv, sizeof word);
  return (word[0] | word[1] | word[2]) == 0;
}

// Scatters pixels begin..end - 1 of a row, from the last to the first if the view is flipped.
template <bool kFlip, class Out>
DSA_FLAT void scatter(const uint8_t* image, const uint8_t* iuv, int begin, int end, const Targets& target,
                      const Out* value, Out* out, int64_t plane) {
  const int count = end - begin;
  for (int done = 0; done < count;) {
    const int now = std::min(8, count - done);
    const int x = kFlip ? end - done - now : begin + done;  // the leftmost of the next eight
    done += now;
    if (now == 8 && eight_are_background(iuv + x * kColours)) continue;
    for (int k = 0; k < now; ++k) {
      const int at = (kFlip ? x + now - 1 - k : x + k) * kColours;
      const int part = part_of(iuv[at], 0, 0);
      if (target.part[part] < 0) continue;
      Out* cell = out + target.part[part] + target.row[iuv[at + 1] ^ target.turn_u[part]] +
                  target.column[iuv[at + 2] ^ target.turn_v[part]];
      for (int c = 0; c < kColours; ++c) cell[c * plane] = value[c * 256 + image[at + c]];
    }
  }
}

template <bool kFlip, class Out>
DSA_FLAT void scatter_view(const BatchCall& call, const View& view, const uint8_t* image, const uint8_t* iuv,
                           const Targets& target, const Out* value, Out* out) {
  const auto& [shown, erased] = view;
  const auto run = [&](int64_t offset, int begin, int end) DSA_FLAT_LAMBDA {
    scatter<kFlip>(image + offset, iuv + offset, begin, end, target, value, out, call.dsap_stride[2]);
  };
  for (int y = shown.top; y < shown.bottom; ++y) {
    const int64_t offset = int64_t{kColours} * call.stored_width * y;
    if (y < erased.top || y >= erased.bottom) {
      run(offset, shown.left, shown.right);
    } else if (kFlip) {
      run(offset, erased.right, shown.right), run(offset, shown.left, erased.left);
    } else {
      run(offset, shown.left, erased.left), run(offset, erased.right, shown.right);
    }
  }
}

template <class Out>
DSA_FLAT void assemble_sample(const BatchCall& call, const BatchTables& tables, int sample) {
  const auto* value = reinterpret_cast<const Out*>(tables.value.data());
  Out fill[kColours];
  for (int c = 0; c < kColours; ++c) fill[c] = from_float<Out>(call.fill[c]);
  Out* image = static_cast<Out*>(call.image) + sample * call.image_stride[0];
  Out* dsap = call.dsap ? static_cast<Out*>(call.dsap) + sample * call.dsap_stride[0] : nullptr;
  if (dsap) fill_parts(dsap, call.dsap_stride, call.size, kColours, fill, 0, call.parts);

  const int64_t index = call.index[sample];
  Augmentation a{};
  a.keep = kKeepAll;
  if (call.drawn) a = call.drawn[sample];
  if (index < 0 || index >= call.images_stored) {
    a.shift_y = call.height;  // shows nothing
    return assemble_image(call, tables, a, call.images, value, fill, image);
  }
  const uint8_t* stored = call.images + index * call.images_stride;
  if (dsap) {
    Augmentation seen = a;
    if (!call.augmented_dsap) seen = {}, seen.keep = a.keep;
    const View view = stored_view(seen, call.stored_height, call.stored_width, call.height, call.width);
    const uint8_t* iuv = call.iuv + index * call.iuv_stride;
    const Targets target(tables, seen);
    seen.flip ? scatter_view<true>(call, view, stored, iuv, target, value, dsap)
              : scatter_view<false>(call, view, stored, iuv, target, value, dsap);
  }
  assemble_image(call, tables, a, stored, value, fill, image);
}

}  // namespace

BatchTables::BatchTables(const BatchCall& call)
    : narrow_rows(resize_is_narrow(call.height, call.row_taps, call.rows)) {
  for (const bool flip : {false, true}) {
    columns[flip] = resize_runs(call.stored_width, call.width, call.column_taps, call.columns, flip);
  }
  with_type(call.type, [&](auto type) {
    using Out = typename decltype(type)::type;
    value.resize(kColours * 256 * sizeof(Out));
    Out* to = reinterpret_cast<Out*>(value.data());
    for (int i = 0; i < kColours * 256; ++i) {
      to[i] = Convert<Out, uint8_t>::value(static_cast<uint8_t>(i % 256), call.normalise[i / 256]);
    }
  });
  if (!call.dsap) return;
  for (int q = 0; q < 256; ++q) {
    const int cell = cell_of(static_cast<uint8_t>(q), call.size);
    row[q] = cell * call.dsap_stride[3], column[q] = cell * call.dsap_stride[4];
  }
  for (int flip = 0; flip < 2; ++flip) {
    part[flip][0] = -1;
    for (int i = 1; i <= kParts; ++i) {
      const PartTarget target = part_target(i, call.parts, call.mirror, flip != 0);
      part[flip][i] = target.image * call.dsap_stride[1];
      turn_u[flip][i] = target.reverse_u ? 255 : 0;
      turn_v[flip][i] = target.reverse_v ? 255 : 0;
    }
  }
}

DSA_CLONES void assemble_cpu(const BatchCall& call, const BatchTables& tables, int sample) {
  switch (call.type) {
    case Type::uint8: return;
    case Type::float16: return assemble_sample<Half>(call, tables, sample);
    case Type::bfloat16: return assemble_sample<BFloat>(call, tables, sample);
    case Type::float32: return assemble_sample<float>(call, tables, sample);
  }
}

}  // namespace dsa
