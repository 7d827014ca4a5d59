// What each kernel does to memory on a typical batch, one JSON object a line; report.py prints it.
//
//   counts [IMAGES]    IMAGES = 64 unless said otherwise
//
// `least` is the fewest 32-byte sectors that the work can touch: every I, U and V only where a pixel
// is foreground, the image only where a pixel wins a cell, each output byte once; of a batch also what its
// views do not show is left out, and of the stored images what no shown pixel is a sum of.
#include "counters.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "batch.h"
#include "cases.h"
#include "merge.h"
#include "rank.h"
#include "resize.h"
#include "simt.h"
#include "warp.h"

using namespace cases;

namespace {

constexpr int kHeight = 256, kWidth = 128, kSize = 32, kChannels = 3;

// Sectors of `memory` that hold one of the elements that are marked.
using Sectors = std::set<uint64_t>;
void mark(Sectors& sectors, const void* address) { sectors.insert(reinterpret_cast<uint64_t>(address) / 32); }

void print(const std::string& what, const simt::Counts& counts, std::map<std::string, int64_t> least) {
  std::printf(
      "{\"what\": \"%s\", \"kernel\": \"%s\", \"launches\": %ld, \"blocks\": %ld, \"shared_bytes\": %ld",
      what.c_str(), counts.kernel.c_str(), counts.launches, counts.blocks, counts.shared_bytes);
  const simt::Shared& s = counts.shared;
  std::printf(
      ", \"shared\": {\"requests\": %ld, \"wavefronts\": %ld, \"least_wavefronts\": %ld, \"atomics\": %ld, "
      "\"atomic_lanes\": %ld, \"atomic_serial\": %ld}, \"buffers\": [",
      s.requests, s.wavefronts, s.least_wavefronts, s.atomics, s.atomic_lanes, s.atomic_serial);
  const char* comma = "";
  for (const simt::Buffer& b : counts.buffers) {
    for (const bool stores : {false, true}) {
      const simt::Requests& r = stores ? b.stores : b.loads;
      if (!r.requests) continue;
      const int64_t distinct = stores ? b.store_sectors : b.load_sectors;
      const int64_t fewest = least.count(b.name) ? least[b.name] : int64_t(b.bytes + 31) / 32;
      std::printf(
          "%s{\"name\": \"%s\", \"kind\": \"%s\", \"requests\": %ld, \"bytes\": %ld, \"sectors\": %ld, "
          "\"full_sectors\": %ld, \"wide\": %ld, \"distinct\": %ld, \"least\": %ld}",
          comma, b.name.c_str(), stores ? "store" : "load", r.requests, r.bytes, r.sectors, r.full_sectors,
          r.wide, distinct, fewest);
      comma = ", ";
    }
  }
  std::printf("]}\n");
}

// Person-shaped: a block of 6 x 4 parts with smooth charts and a little noise, 45 % of the image.
void draw_people(Random& random, int images, int image_height, int image_width, const int64_t (&stride)[4],
                 uint8_t* iuv) {
  const int height = image_height * 77 / 100, width = image_width * 59 / 100;
  for (int b = 0; b < images; ++b) {
    std::vector<int> part(24);
    std::iota(part.begin(), part.end(), 1);
    for (int i = 24; i > 1; --i) std::swap(part[i - 1], part[random.below(i)]);
    const int top = random.below(image_height - height + 1), left = random.below(image_width - width + 1);
    for (int y = 0; y < image_height; ++y) {
      for (int x = 0; x < image_width; ++x) {
        const bool person = y >= top && y < top + height && x >= left && x < left + width;
        const float down = (y - top) * 6.f / height, across = (x - left) * 4.f / width;
        auto chart = [&](float at) {
          return std::clamp(static_cast<int>((at - int(at)) * 255) + random.below(15) - 7, 0, 255);
        };
        const int value[3] = {person ? part[int(down) * 4 + int(across)] : 0, person ? chart(down) : 0,
                              person ? chart(across) : 0};
        for (int plane = 0; plane < 3; ++plane) {
          iuv[b * stride[0] + plane * stride[1] + y * stride[2] + x * stride[3]] =
              static_cast<uint8_t>(value[plane]);
        }
      }
    }
  }
}

void count_warp(const std::string& what, int images, Type out_type, bool last, bool with_source) {
  Random random(1);
  int64_t image_stride[4], iuv_stride[4], out_stride[5];
  const int order[4] = {0, last ? 2 : 1, last ? 3 : 2, last ? 1 : 3};
  const int out_order[5] = {0, 1, last ? 3 : 2, last ? 4 : 3, last ? 2 : 4};
  strides({images, kChannels, kHeight, kWidth}, order, 0, image_stride);
  strides({images, 3, kHeight, kWidth}, order, 0, iuv_stride);
  strides({images, 24, kChannels, kSize, kSize}, out_order, 0, out_stride);
  const size_t pixels = size_t(images) * kHeight * kWidth, cells = size_t(images) * 24 * kSize * kSize;
  const Memory image(pixels * kChannels), iuv(pixels * 3), out(cells * kChannels * bytes_of(out_type));
  const Memory source(cells * 4);
  draw_all(random, Type::uint8, image);
  draw_people(random, images, kHeight, kWidth, iuv_stride, iuv.as<uint8_t>());
  const float fill[kChannels] = {};
  const dsa::Normalise normalise[kChannels] = {{true, 0.5f, 0.2f}, {true, 0.4f, 0.2f}, {true, 0.4f, 0.3f}};
  dsa::WarpImages call{};
  call.batch = images, call.channels = kChannels, call.height = kHeight, call.width = kWidth;
  call.size = kSize, call.parts = 24;
  call.image = image.begin(), call.image_type = Type::uint8, call.iuv = iuv.begin();
  call.out = out.begin(), call.out_type = out_type, call.source = source.as<int32_t>();
  call.fill = fill, call.normalise = normalise;
  std::memcpy(call.image_stride, image_stride, sizeof image_stride);
  std::memcpy(call.iuv_stride, iuv_stride, sizeof iuv_stride);
  std::memcpy(call.out_stride, out_stride, sizeof out_stride);
  for (int b = 0; b < images; ++b) dsa::warp_cpu(call, b, 0, 24);
  if (!with_source) call.source = nullptr;

  Sectors least_iuv, least_image;
  for (size_t p = 0; p < pixels; ++p) {
    const int64_t at = p / (kHeight * kWidth) * iuv_stride[0] + p % (kHeight * kWidth) * iuv_stride[3];
    mark(least_iuv, iuv.begin() + at);
    if (!iuv.begin()[at]) continue;
    mark(least_iuv, iuv.begin() + at + iuv_stride[1]);
    mark(least_iuv, iuv.begin() + at + 2 * iuv_stride[1]);
  }
  for (size_t cell = 0; cell < cells; ++cell) {
    const int pixel = source.as<int32_t>()[cell];
    for (int c = 0; c < kChannels && pixel >= 0; ++c) {
      mark(least_image, image.begin() + cell / (24 * kSize * kSize) * image_stride[0] + c * image_stride[1] +
                            pixel * image_stride[3]);
    }
  }
  simt::forget_buffers();
  simt::watch("image", image.begin(), image.bytes);
  simt::watch("iuv", iuv.begin(), iuv.bytes);
  simt::watch("out", out.begin(), out.bytes);
  simt::watch("source", source.begin(), source.bytes);
  dsa::warp_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"iuv", int64_t(least_iuv.size())}, {"image", int64_t(least_image.size())}});
  if (!with_source || out_type != Type::float32) return;

  // The gradient of the same batch.
  const Memory grad_image(pixels * kChannels * 4);
  draw_all(random, Type::float32, out);
  Sectors least_grad;
  for (size_t cell = 0; cell < cells; ++cell) {
    for (int c = 0; c < kChannels && source.as<int32_t>()[cell] >= 0; ++c) {
      const size_t part = cell / (kSize * kSize), at = cell % (kSize * kSize);
      mark(least_grad, out.as<float>() + part * out_stride[1] + c * out_stride[2] + at * out_stride[4]);
    }
  }
  dsa::WarpGradient back{images, kChannels, kHeight, kWidth, kSize, 24};
  back.grad = out.begin(), back.grad_type = Type::float32;
  std::memcpy(back.grad_stride, out_stride, sizeof out_stride);
  back.source = source.as<int32_t>(), back.grad_image = grad_image.begin();
  back.image_type = Type::float32, back.normalise = normalise;
  simt::forget_buffers();
  simt::watch("grad", out.begin(), out.bytes);
  simt::watch("source", source.begin(), source.bytes);
  simt::watch("grad_image", grad_image.begin(), grad_image.bytes);
  dsa::warp_gradient_cuda(back, nullptr);
  print("gradient, float32", simt::take_counts(), {{"grad", int64_t(least_grad.size())}});
}

// What the view of a sample shows: a byte for each stored pixel whose part image it may reach, and for
// each that a pixel of the resized image is a weighted sum of.
struct Needed {
  std::vector<char> iuv, image;
};
Needed needed(const dsa::BatchCall& call, int sample) {
  const dsa::Augmentation& a = call.drawn[sample];
  Needed result{std::vector<char>(call.stored_height * call.stored_width), {}};
  result.image = result.iuv;
  const auto shown = [&](int y, int x) {  // of the resized image
    const int row = y - a.shift_y, column = a.flip ? call.width - 1 - x + a.shift_x : x - a.shift_x;
    return row >= 0 && row < call.height && column >= 0 && column < call.width &&
           !(row >= a.top && row < a.bottom && column >= a.left && column < a.right);
  };
  for (int y = 0; y < call.stored_height; ++y) {
    for (int x = 0; x < call.stored_width; ++x) {
      result.iuv[y * call.stored_width + x] = shown((2 * y + 1) * call.height / (2 * call.stored_height),
                                                    (2 * x + 1) * call.width / (2 * call.stored_width));
    }
  }
  for (int y = 0; y < call.height; ++y) {
    for (int x = 0; x < call.width; ++x) {
      const int32_t* row = call.rows + y * (1 + call.row_taps);
      const int32_t* column = call.columns + x * (1 + call.column_taps);
      for (int j = 0; j < call.row_taps && shown(y, x); ++j) {
        for (int i = 0; i < call.column_taps; ++i) {
          result.image[(row[0] + j) * call.stored_width + column[0] + i] |= row[1 + j] && column[1 + i];
        }
      }
    }
  }
  return result;
}

// A batch of 128x64 images as a training loop asks for it: every stored one once, everything drawn.
void count_batch(const std::string& what, int images, Type type, bool last) {
  constexpr int kStoredHeight = kHeight / 2, kStoredWidth = kWidth / 2;
  constexpr int kPixels = kStoredHeight * kStoredWidth;
  Random random(4);
  dsa::BatchCall call{};
  call.images_stored = call.batch = images, call.augmented_dsap = true;
  call.stored_height = kStoredHeight, call.stored_width = kStoredWidth;
  call.height = kHeight, call.width = kWidth, call.size = kSize, call.parts = 24, call.type = type;
  call.images_stride = call.iuv_stride = 3 * kPixels;
  call.row_taps = dsa::resize_taps(kStoredHeight, kHeight);
  call.column_taps = dsa::resize_taps(kStoredWidth, kWidth);
  const int order[4] = {0, last ? 2 : 1, last ? 3 : 2, last ? 1 : 3};
  const int dsap_order[5] = {0, 1, last ? 3 : 2, last ? 4 : 3, last ? 2 : 4};
  const int64_t image_elements = strides({images, 3, kHeight, kWidth}, order, 0, call.image_stride);
  const int64_t dsap_elements = strides({images, 24, 3, kSize, kSize}, dsap_order, 0, call.dsap_stride);
  const Memory stored(images * 3 * kPixels), iuv(images * 3 * kPixels), index(images * 8);
  const Memory drawn(images * sizeof(dsa::Augmentation));
  const Memory rows(kHeight * (1 + call.row_taps) * 4), columns(kWidth * (1 + call.column_taps) * 4);
  const Memory image(image_elements * bytes_of(type)), dsap(dsap_elements * bytes_of(type));
  dsa::resize_table(kStoredHeight, kHeight, call.row_taps, rows.as<int32_t>());
  dsa::resize_table(kStoredWidth, kWidth, call.column_taps, columns.as<int32_t>());
  draw_all(random, Type::uint8, stored);
  const int64_t iuv_stride[4] = {3 * kPixels, 1, 3 * kStoredWidth, 3};
  draw_people(random, images, kStoredHeight, kStoredWidth, iuv_stride, iuv.begin());
  const dsa::AugmentSettings settings{kHeight, kWidth, 10, 0.5, 0.5, 0, 0};
  for (int b = 0; b < images; ++b) {
    index.as<int64_t>()[b] = b;
    drawn.as<dsa::Augmentation>()[b] = dsa::draw_augmentation(settings, 1, 0, b, 0);
  }
  call.images = stored.begin(), call.iuv = iuv.begin();
  call.index = index.as<int64_t>(), call.drawn = drawn.as<dsa::Augmentation>();
  call.rows = rows.as<int32_t>(), call.columns = columns.as<int32_t>();
  call.image = image.begin(), call.dsap = dsap.begin();

  Sectors least_iuv, least_stored;
  for (int b = 0; b < images; ++b) {
    const Needed need = needed(call, b);
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const int64_t at = b * call.iuv_stride + pixel * 3;
      if (need.iuv[pixel]) mark(least_iuv, iuv.begin() + at);
      for (int c = 0; c < 3; ++c) {
        if (need.iuv[pixel] && iuv.begin()[at]) mark(least_iuv, iuv.begin() + at + c);
        if (need.image[pixel]) mark(least_stored, stored.begin() + at + c);
      }
    }
  }
  simt::forget_buffers();
  simt::watch("stored", stored.begin(), stored.bytes);
  simt::watch("iuv", iuv.begin(), iuv.bytes);
  simt::watch("index", index.begin(), index.bytes);
  simt::watch("drawn", drawn.begin(), drawn.bytes);
  simt::watch("rows", rows.begin(), rows.bytes);
  simt::watch("columns", columns.begin(), columns.bytes);
  simt::watch("image", image.begin(), image.bytes);
  simt::watch("dsap", dsap.begin(), dsap.bytes);
  dsa::assemble_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"iuv", int64_t(least_iuv.size())}, {"stored", int64_t(least_stored.size())}});
}

// The second merge of the DSAG-Stream in its layout: 13 x 128 channels of 8 x 8 pixels.
void count_merge(const std::string& what, int images, Type type, bool residual, bool relu, bool backward) {
  Random random(2);
  const dsa::MergeTable table = dsa::merge_table(true);
  dsa::MergeCall call{table, int64_t{images} * 64, 128, type};
  const size_t element = call.inner * bytes_of(type) * call.batch;
  const Memory features(element * table.parts), shortcut(element * table.parts);
  const Memory merged(element * table.groups), parts(element * table.parts);
  for (const Memory* memory : {&features, &shortcut, &merged}) draw_all(random, type, *memory);
  call.features = features.begin(), call.residual = residual ? shortcut.begin() : nullptr;
  call.relu = relu, call.merged = merged.begin();
  call.out = backward ? parts.begin() : merged.begin();
  if (backward && !relu) call.features = call.residual = nullptr;
  simt::forget_buffers();
  simt::watch("features", features.begin(), features.bytes);
  simt::watch("residual", shortcut.begin(), shortcut.bytes);
  simt::watch(backward ? "grad" : "out", merged.begin(), merged.bytes);
  simt::watch("grad of parts", parts.begin(), parts.bytes);
  backward ? dsa::expand_cuda(call, nullptr) : dsa::merge_cuda(call, nullptr);
  print(what, simt::take_counts(), {});
}

// A tile of queries against Market-1501's gallery; features good enough that positives are near.
void count_rank(const std::string& what, int queries, int gallery) {
  Random random(3);
  const int identities = 750, cameras = 6;
  std::vector<int64_t> id(gallery), query_id(queries);
  const Memory distances(size_t(queries) * gallery * 4), members(gallery * 8), cams(gallery * 8);
  const Memory first(queries * 8), count(queries * 8), query_cams(queries * 8);
  for (int i = 0; i < gallery; ++i) {
    id[i] = random.below(identities), members.as<int64_t>()[i] = i;
    cams.as<int64_t>()[i] = random.below(cameras);
  }
  int64_t* member = members.as<int64_t>();
  std::stable_sort(member, member + gallery, [&](int64_t a, int64_t b) { return id[a] < id[b]; });
  int64_t most = 1;
  for (int q = 0; q < queries; ++q) {
    const int own = random.below(identities);
    first.as<int64_t>()[q] = std::count_if(id.begin(), id.end(), [&](int64_t x) { return x < own; });
    count.as<int64_t>()[q] = std::count(id.begin(), id.end(), own);
    query_cams.as<int64_t>()[q] = random.below(cameras);
    most = std::max(most, count.as<int64_t>()[q]);
    for (int i = 0; i < gallery; ++i) {
      distances.as<float>()[int64_t(q) * gallery + i] = random.uniform() + (id[i] == own ? 0.f : 0.5f);
    }
  }
  most = (most + 3) / 4 * 4;  // as the torch library has it
  const Memory ranks(queries * most * 8), found(queries * 8);
  dsa::RankCall call{queries,
                     gallery,
                     distances.begin(),
                     false,
                     gallery,
                     member,
                     first.as<int64_t>(),
                     count.as<int64_t>(),
                     query_cams.as<int64_t>(),
                     cams.as<int64_t>(),
                     most,
                     ranks.as<int64_t>(),
                     found.as<int64_t>()};
  simt::forget_buffers();
  simt::watch("distances", distances.begin(), distances.bytes);
  simt::watch("ranks", ranks.begin(), ranks.bytes);
  simt::watch("found", found.begin(), found.bytes);
  simt::watch("members", members.begin(), members.bytes);
  simt::watch("gallery_cams", cams.begin(), cams.bytes);
  std::map<std::string, Sectors> touched;
  for (int q = 0; q < queries; ++q) {
    for (int64_t i = 0; i < count.as<int64_t>()[q]; ++i) {
      const int64_t* own = member + first.as<int64_t>()[q] + i;
      mark(touched["members"], own);
      mark(touched["gallery_cams"], cams.as<int64_t>() + *own);
    }
  }
  dsa::rank_cuda(call, nullptr);
  print(what, simt::take_counts(),
        {{"members", int64_t(touched["members"].size())},
         {"gallery_cams", int64_t(touched["gallery_cams"].size())}});
}

}  // namespace

int main(int count, char** words) {
  const int images = count > 1 ? std::atoi(words[1]) : 64;
  count_warp("warp, uint8 to float32", images, Type::float32, false, false);
  count_warp("warp, uint8 to float16", images, Type::float16, false, false);
  count_warp("warp, uint8 to uint8", images, Type::uint8, false, false);
  count_warp("warp, [H,W,3] to float32 [S,S,3]", images, Type::float32, true, false);
  count_warp("warp, uint8 to float32, winners", images, Type::float32, false, true);
  count_batch("batch, float32", images, Type::float32, false);
  count_batch("batch, float16 channels last", images, Type::float16, true);
  count_merge("merge, float32", images, Type::float32, false, false, false);
  count_merge("merge, float32, residual, relu", images, Type::float32, true, true, false);
  count_merge("merge, bfloat16, residual, relu", images, Type::bfloat16, true, true, false);
  count_merge("expand, float32", images, Type::float32, false, false, true);
  count_merge("expand, float32, residual, relu", images, Type::float32, true, true, true);
  count_rank("rank, float32", images * 4, 15913);
  return 0;
}
