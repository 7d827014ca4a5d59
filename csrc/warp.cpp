// CPU backend of the warp: one sequential pass over the pixels of an image scatters them, so that
// the last pixel in raster order wins by itself.
//
// What the speed rests on: rows, columns and converted values come from 256-entry tables that hold
// offsets in elements (so strided output costs nothing), eight background pixels are skipped at a
// time, and an image's output (288 KiB at S = 32, float32) is filled just before it is scattered
// to, while it is in cache.
#include "warp.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "fill.h"
#include "iuv.h"

namespace dsa {
namespace {

// Where the pixels of each part go: offsets in elements from the image's first output element.
// Arrays rather than an array of structs: what every pixel needs is one load with a scaled index.
struct PartTargets {
  ptrdiff_t out[kParts + 1];     // start of the part image; -1: background or another unit's part
  ptrdiff_t source[kParts + 1];  // start of its map of winners
  bool reverse[kParts + 1];      // read U from the chart's other end

  PartTargets(const WarpImages& call, int first_part, int last_part) {
    out[0] = -1;
    for (int part = 1; part <= kParts; ++part) {
      const PartTarget target = part_target(part, call.parts, call.mirror, false);
      const bool ours = target.image >= first_part && target.image < last_part;
      out[part] = ours ? target.image * call.out_stride[1] : -1;
      source[part] = static_cast<ptrdiff_t>(target.image) * call.size * call.size;
      reverse[part] = target.reverse_u;
    }
  }
};

// Reads a pixel's value and converts it: from uint8 by a table of 256 entries a channel.
template <class In, class Out>
struct Values {
  const Normalise* normalise;
  explicit Values(const WarpImages& call) : normalise(call.normalise) {}
  Out operator()(int channel, In x) const { return Convert<Out, In>::value(x, normalise[channel]); }
};
template <class Out>
struct Values<uint8_t, Out> {
  std::vector<Out> table;
  explicit Values(const WarpImages& call) : table(static_cast<size_t>(call.channels) * 256) {
    for (int channel = 0; channel < call.channels; ++channel) {
      for (int x = 0; x < 256; ++x) {
        table[channel * 256 + x] =
            Convert<Out, uint8_t>::value(static_cast<uint8_t>(x), call.normalise[channel]);
      }
    }
  }
  Out operator()(int channel, uint8_t x) const { return table[channel * 256 + x]; }
};

// Offsets of the row or column that a coordinate falls into, in elements of the output and of the
// map of winners. From uint8 by table, from float by computation.
template <class Coordinate>
struct Cells {
  int size;
  ptrdiff_t stride;
  Cells(int size_, ptrdiff_t stride_) : size(size_), stride(stride_) {}
  ptrdiff_t operator()(float u) const { return cell_within(u, size) * stride; }
};
template <>
struct Cells<uint8_t> {
  ptrdiff_t offset[256];
  Cells(int size, ptrdiff_t stride) {
    for (int q = 0; q < 256; ++q) offset[q] = cell_of(static_cast<uint8_t>(q), size) * stride;
  }
  ptrdiff_t operator()(uint8_t q) const { return offset[q]; }
};

// Whether x lies in 0..most, by its bits: those of negative numbers and NaNs are larger.
inline bool is_within(float x, float most) {
  return std::bit_cast<uint32_t>(x) <= std::bit_cast<uint32_t>(most);
}

// Whether a pixel is impossible: I is not whole, or u or v of the foreground lies too far outside of 0..1.
// With a NaN in it a pixel is background, whatever else it holds. Rarely called, so kept out of the scan.
[[gnu::noinline]] bool is_impossible(float i, float u, float v) {
  if (i != i || u != u || v != v) return false;
  if (!std::isfinite(i) || std::trunc(i) != i) return true;
  const bool outside = std::min(u, v) < -kOvershoot || std::max(u, v) > 1.f + kOvershoot;
  return outside && i >= 1.f && i <= kParts;
}

// The part of a pixel, 0 for background; u and v are clamped to [0, 1]. Sets `impossible` if the pixel is;
// bytes are always possible.
inline int take_pixel(uint8_t i, uint8_t u, uint8_t v, bool&) { return part_of(i, u, v); }
inline int take_pixel(float i, float& u, float& v, bool& impossible) {
  if (!(i > 0.f || i < 0.f)) return 0;  // or NaN
  // Nearly all foreground pixels return here, which costs less than clamping.
  if (is_within(i, kParts) && is_within(u, 1.f) && is_within(v, 1.f)) [[likely]] {
    const int part = static_cast<int>(i);
    const bool whole = static_cast<float>(part) >= i;
    if (whole) return part;
  }
  impossible |= is_impossible(i, u, v);
  const int part = part_of(i, u, v);
  u = clamped(u), v = clamped(v);
  return part;
}

inline bool eight_are_background(const uint8_t* i) {
  uint64_t word;
  std::memcpy(&word, i, sizeof word);
  return word == 0;
}
inline bool eight_are_background(const float* i) {
  uint64_t words[4];
  std::memcpy(words, i, sizeof words);
  return (words[0] | words[1] | words[2] | words[3]) == 0;
}

template <class In, class Out, class Coordinate, int kChannels, bool kWithSource, bool kReversing>
bool scatter(const WarpImages& call, int batch_index, int first_part, int last_part) {
  const auto* image = static_cast<const In*>(call.image) + batch_index * call.image_stride[0];
  const auto* iuv = static_cast<const Coordinate*>(call.iuv) + batch_index * call.iuv_stride[0];
  auto* out = static_cast<Out*>(call.out) + batch_index * call.out_stride[0];
  const int channels = kChannels ? kChannels : call.channels;
  const int64_t map_size = static_cast<int64_t>(call.size) * call.size;

  std::vector<Out> fill(channels);
  for (int c = 0; c < channels; ++c) fill[c] = from_float<Out>(call.fill[c]);
  fill_parts(out, call.out_stride, call.size, channels, fill.data(), first_part, last_part);
  int32_t* source = nullptr;
  if constexpr (kWithSource) {
    source = call.source + batch_index * call.parts * map_size;
    std::fill(source + first_part * map_size, source + last_part * map_size, -1);
  }

  const PartTargets target(call, first_part, last_part);
  const Values<In, Out> value(call);
  const Cells<Coordinate> row_of(call.size, call.out_stride[3]);
  const Cells<Coordinate> column_of(call.size, call.out_stride[4]);
  const ptrdiff_t image_channel = call.image_stride[1], out_channel = call.out_stride[2];
  const ptrdiff_t image_step = call.image_stride[3], iuv_step = call.iuv_stride[3];
  const bool skip = iuv_step == 1;
  bool impossible = false;

  for (int y = 0; y < call.height; ++y) {
    const Coordinate* i_row = iuv + y * call.iuv_stride[2];
    const Coordinate* u_row = i_row + call.iuv_stride[1];
    const Coordinate* v_row = u_row + call.iuv_stride[1];
    const In* image_row = image + y * call.image_stride[2];
    for (int x = 0; x < call.width;) {
      if (skip && x + 8 <= call.width && eight_are_background(i_row + x)) {
        x += 8;
        continue;
      }
      for (const int stop = std::min(x + 8, call.width); x < stop; ++x) {
        const Coordinate i = i_row[x * iuv_step];
        Coordinate u = u_row[x * iuv_step];
        Coordinate v = v_row[x * iuv_step];
        const int part = take_pixel(i, u, v, impossible);
        if (target.out[part] < 0) continue;
        if (kReversing && target.reverse[part]) u = reversed(u);
        Out* cell = out + target.out[part] + row_of(u) + column_of(v);
        const In* pixel = image_row + x * image_step;
        for (int c = 0; c < channels; ++c) {
          cell[c * out_channel] = value(c, pixel[c * image_channel]);
        }
        if constexpr (kWithSource) {
          source[target.source[part] + cell_of(u, call.size) * call.size + cell_of(v, call.size)] =
              y * call.width + x;
        }
      }
    }
  }
  return !impossible;
}

// Chooses an instantiation: the usual case is three channels without reversal.
template <class In, class Out, class Coordinate>
bool scatter_any(const WarpImages& call, int batch_index, int first_part, int last_part) {
  auto* run = &scatter<In, Out, Coordinate, 0, true, true>;
  if (!call.source) {
    run = call.channels != 3 ? &scatter<In, Out, Coordinate, 0, false, true>
          : call.mirror      ? &scatter<In, Out, Coordinate, 3, false, true>
                             : &scatter<In, Out, Coordinate, 3, false, false>;
  }
  return run(call, batch_index, first_part, last_part);
}

template <class In, class Out>
bool scatter_from(const WarpImages& call, int batch_index, int first_part, int last_part) {
  auto* run = call.iuv_is_float ? &scatter_any<In, Out, float> : &scatter_any<In, Out, uint8_t>;
  return run(call, batch_index, first_part, last_part);
}

template <class In>
bool scatter_to(const WarpImages& call, int batch_index, int first_part, int last_part) {
  switch (call.out_type) {
    case Type::uint8:
      if constexpr (std::is_same_v<In, uint8_t>) {
        return scatter_from<In, uint8_t>(call, batch_index, first_part, last_part);
      }
      break;
    case Type::float16: return scatter_from<In, Half>(call, batch_index, first_part, last_part);
    case Type::bfloat16: return scatter_from<In, BFloat>(call, batch_index, first_part, last_part);
    case Type::float32: return scatter_from<In, float>(call, batch_index, first_part, last_part);
  }
  return true;  // not reached: floating images have no uint8 output
}

template <class Grad, class Image>
void gradient(const WarpGradient& call, int batch_index) {
  const int64_t map_size = static_cast<int64_t>(call.size) * call.size;
  const int64_t plane = static_cast<int64_t>(call.height) * call.width;
  const auto* grad = static_cast<const Grad*>(call.grad) + batch_index * call.grad_stride[0];
  const int32_t* source = call.source + batch_index * call.parts * map_size;
  auto* grad_image = static_cast<Image*>(call.grad_image) + batch_index * call.channels * plane;
  std::fill_n(grad_image, call.channels * plane, Image{});
  for (int part = 0; part < call.parts; ++part) {
    for (int cell = 0; cell < map_size; ++cell) {
      const int32_t pixel = *source++;
      if (pixel < 0 || pixel >= plane) continue;
      const Grad* from = grad + part * call.grad_stride[1] + cell / call.size * call.grad_stride[3] +
                         cell % call.size * call.grad_stride[4];
      for (int c = 0; c < call.channels; ++c) {
        grad_image[c * plane + pixel] =
            from_float<Image>(to_float(from[c * call.grad_stride[2]]) / call.normalise[c].std);
      }
    }
  }
}

template <class Grad>
void gradient_of(const WarpGradient& call, int batch_index) {
  switch (call.image_type) {
    case Type::uint8: return;  // integers have no gradient
    case Type::float16: return gradient<Grad, Half>(call, batch_index);
    case Type::bfloat16: return gradient<Grad, BFloat>(call, batch_index);
    case Type::float32: return gradient<Grad, float>(call, batch_index);
  }
}

}  // namespace

bool warp_cpu(const WarpImages& call, int batch_index, int first_part, int last_part) {
  switch (call.image_type) {
    case Type::uint8: return scatter_to<uint8_t>(call, batch_index, first_part, last_part);
    case Type::float16: return scatter_to<Half>(call, batch_index, first_part, last_part);
    case Type::bfloat16: return scatter_to<BFloat>(call, batch_index, first_part, last_part);
    case Type::float32: return scatter_to<float>(call, batch_index, first_part, last_part);
  }
  return true;  // not reached: there are no other types
}

void warp_gradient_cpu(const WarpGradient& call, int batch_index) {
  switch (call.grad_type) {
    case Type::uint8: return;
    case Type::float16: return gradient_of<Half>(call, batch_index);
    case Type::bfloat16: return gradient_of<BFloat>(call, batch_index);
    case Type::float32: return gradient_of<float>(call, batch_index);
  }
}

}  // namespace dsa
