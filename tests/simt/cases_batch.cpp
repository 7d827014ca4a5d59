// Cases of batch assembly: the kernel against the CPU backend, bit for bit.
#include <limits>

#include "batch.h"
#include "cases.h"
#include "resize.h"
#include "simt.h"

using namespace cases;

namespace {

enum class Pixels { mixed, background, one_cell, out_of_range };
// How the two outputs lie in memory: the order of dimensions, and gaps behind each run of the innermost.
enum class Layout { planes, interleaved, padded, aligned_gaps, swapped, unaligned };
// What happens to the samples: nothing is drawn, all is, the view is off the image, the erased box
// touches the view's borders, no part is kept, or numbers that nobody checked.
enum class Drawn { null, any, beyond, borders, none_kept, wild };

struct Case {
  int batch, stored, stored_height, stored_width, height, width, size;
  int parts = 24;
  bool mirror = false;
  Type type = Type::float32;
  bool dsap = true, augmented_dsap = true, foreign = false, normalise = false;
  Drawn drawn = Drawn::any;
  Pixels pixels = Pixels::mixed;
  Layout layout = Layout::planes;
  int gap = 0, offset = 0;  // bytes between the stored images, and before the first

  std::string name() const {
    char text[320];
    std::snprintf(text, sizeof text,
                  "batch: %d of %dx%dx%d to %dx%d and %d x %d x %d%s, %s, layout %d, stored gap %d "
                  "offset %d, drawn %d, pixels %d%s%s%s, %d KiB shared, %d multiprocessors",
                  batch, stored, stored_height, stored_width, height, width, dsap ? parts : 0, size, size,
                  mirror ? " mirrored" : "", name_of(type), int(layout), gap, offset, int(drawn), int(pixels),
                  augmented_dsap ? "" : ", plain dsap", foreign ? ", foreign" : "",
                  normalise ? ", normalised" : "", simt::settings.shared_bytes >> 10,
                  simt::settings.multiprocessors);
    return text;
  }
};

// [B, 3, H, W] or [B, P, 3, S, S] by layout; the number of elements it spans.
template <size_t kDimensions>
int64_t out_strides(Layout layout, const int (&shape)[kDimensions], int64_t (&stride)[kDimensions]) {
  constexpr int n = kDimensions;
  int order[kDimensions];
  for (int i = 0; i < n; ++i) order[i] = i;
  if (layout == Layout::interleaved) order[n - 3] = n - 2, order[n - 2] = n - 1, order[n - 1] = n - 3;
  if (layout == Layout::swapped) order[n - 3] = n - 2, order[n - 2] = n - 3;  // the channels of a row
  const int gap = layout == Layout::padded ? 1 : layout == Layout::aligned_gaps ? 8 : 0;
  return strides(shape, order, gap, stride);
}

// [stored, h, w, 3] of runs of one part, as in a person, with background between them.
void set_iuv(Random& random, const Case& c, uint8_t* iuv, int64_t stride) {
  for (int image = 0; image < c.stored; ++image) {
    int part = 0, left = 0;
    for (int pixel = 0; pixel < c.stored_height * c.stored_width; ++pixel) {
      if (left-- == 0) left = random.below(24), part = random.below(3) ? 1 + random.below(24) : 0;
      uint8_t* to = iuv + image * stride + pixel * 3;
      to[0] = static_cast<uint8_t>(part);
      to[1] = static_cast<uint8_t>(random.next()), to[2] = static_cast<uint8_t>(random.next());
      if (c.pixels == Pixels::background) to[0] = 0;
      if (c.pixels == Pixels::one_cell) to[0] = 7, to[1] = 100, to[2] = 200;
      if (c.pixels == Pixels::out_of_range && random.below(2)) to[0] = static_cast<uint8_t>(random.next());
    }
  }
}

// A range of 0..length, often with an end at the border or empty.
void draw_range(Random& random, int length, int& first, int& end) {
  first = random.below(3) ? random.below(length + 1) : 0;
  end = random.below(3) ? first + random.below(length - first + 1) : length;
}

dsa::Augmentation draw_sample(Random& random, const Case& c) {
  const int shift_y = c.height / 3 + 1, shift_x = c.width / 3 + 1;
  dsa::Augmentation a{random.below(2 * shift_y + 1) - shift_y,
                      random.below(2 * shift_x + 1) - shift_x,
                      random.below(2),
                      0,
                      0,
                      0,
                      0,
                      dsa::kKeepAll};
  if (c.drawn == Drawn::borders) a.shift_y = a.shift_x = 0;
  if (random.below(2) || c.drawn == Drawn::borders) {
    draw_range(random, c.height, a.top, a.bottom), draw_range(random, c.width, a.left, a.right);
  }
  if (random.below(3) == 0) a.keep = static_cast<int32_t>(random.next() & dsa::kKeepAll);
  if (c.drawn == Drawn::none_kept) a.keep = 0;
  if (c.drawn == Drawn::beyond) {
    // Off the image by nothing, by one pixel less, and by far; to either side.
    (random.below(2) ? a.shift_y : a.shift_x) = random.pick<int>(
        {c.height, -c.height, c.width, -c.width, 1 - c.height, c.width - 1, 1 << 20, -(1 << 20)});
  }
  if (c.drawn == Drawn::wild) {
    for (int* number : {&a.shift_y, &a.shift_x, &a.flip, &a.top, &a.left, &a.bottom, &a.right, &a.keep}) {
      if (random.below(2)) *number = random.below(1 << 30) - (1 << 29);
    }
  }
  return a;
}

// The same view in numbers that the CPU backend may be given.
dsa::Augmentation checked(dsa::Augmentation a, const Case& c) {
  a.shift_y = std::clamp(a.shift_y, -c.height, c.height);
  a.shift_x = std::clamp(a.shift_x, -c.width, c.width);
  a.top = std::clamp(a.top, 0, c.height), a.bottom = std::clamp(a.bottom, a.top, c.height);
  a.left = std::clamp(a.left, 0, c.width), a.right = std::clamp(a.right, a.left, c.width);
  return a;
}

Memory table_of(int in, int out) {
  const int taps = dsa::resize_taps(in, out);
  Memory table(size_t(out) * (1 + taps) * 4);
  dsa::resize_table(in, out, taps, table.as<int32_t>());
  return table;
}

// Everything a call points to.
struct Data {
  Memory images, iuv, index, drawn, checked, rows, columns, image, dsap;
  dsa::BatchCall call{};
};

Data make(const Case& c, Random& random) {
  int64_t image_stride[4], dsap_stride[5];
  const int64_t image_elements = out_strides(c.layout, {c.batch, 3, c.height, c.width}, image_stride);
  const int64_t dsap_elements = out_strides(c.layout, {c.batch, c.parts, 3, c.size, c.size}, dsap_stride);
  const int64_t stored_bytes = 3 * c.stored_height * c.stored_width, stride = stored_bytes + c.gap;
  const size_t all = c.stored ? stride * (c.stored - 1) + stored_bytes : 0;
  const size_t element = bytes_of(c.type), offset = c.layout == Layout::unaligned ? element : 0;
  Data data{Memory(all, c.offset),
            Memory(all, c.offset),
            Memory(c.batch * 8),
            Memory(c.batch * sizeof(dsa::Augmentation)),
            Memory(c.batch * sizeof(dsa::Augmentation)),
            table_of(c.stored_height, c.height),
            table_of(c.stored_width, c.width),
            Memory(image_elements * element, offset),
            Memory(dsap_elements * element, offset)};
  draw_all(random, Type::uint8, data.images);
  set_iuv(random, c, data.iuv.begin(), stride);
  for (int b = 0; b < c.batch; ++b) {
    int64_t& index = data.index.as<int64_t>()[b];
    index = c.stored ? random.below(c.stored) : 0;
    if (c.foreign && (random.below(2) || !c.stored)) {
      using Limits = std::numeric_limits<int64_t>;
      index = random.pick<int64_t>({-1, c.stored, Limits::min(), Limits::max()});
    }
    data.drawn.as<dsa::Augmentation>()[b] = draw_sample(random, c);
    data.checked.as<dsa::Augmentation>()[b] = checked(data.drawn.as<dsa::Augmentation>()[b], c);
  }
  dsa::BatchCall& call = data.call;
  call.images_stored = c.stored, call.stored_height = c.stored_height, call.stored_width = c.stored_width;
  call.images = data.images.begin(), call.images_stride = stride;
  call.iuv = c.dsap ? data.iuv.begin() : nullptr, call.iuv_stride = stride;
  call.batch = c.batch, call.index = data.index.as<int64_t>();
  call.drawn = c.drawn == Drawn::null ? nullptr : data.checked.as<dsa::Augmentation>();
  call.augmented_dsap = c.augmented_dsap, call.height = c.height, call.width = c.width;
  call.row_taps = dsa::resize_taps(c.stored_height, c.height), call.rows = data.rows.as<int32_t>();
  call.column_taps = dsa::resize_taps(c.stored_width, c.width), call.columns = data.columns.as<int32_t>();
  call.size = c.size, call.parts = c.parts, call.mirror = c.mirror, call.type = c.type;
  call.image = data.image.begin(), call.dsap = c.dsap ? data.dsap.begin() : nullptr;
  std::memcpy(call.image_stride, image_stride, sizeof image_stride);
  std::memcpy(call.dsap_stride, dsap_stride, sizeof dsap_stride);
  for (int channel = 0; channel < 3; ++channel) {
    call.fill[channel] = random.uniform() - 0.5f;
    if (c.normalise) call.normalise[channel] = {true, random.uniform(), 0.1f + random.uniform()};
  }
  return data;
}

void run(const Case& c, uint64_t seed) {
  Random random(seed);
  const Data data = make(c, random);
  Memory image(data.image.bytes, data.image.offset), dsap(data.dsap.bytes, data.dsap.offset);
  dsa::BatchCall call = data.call;
  const dsa::BatchTables tables(call);
  for (int b = 0; b < c.batch; ++b) dsa::assemble_cpu(call, tables, b);
  call.image = image.begin(), call.dsap = c.dsap ? dsap.begin() : nullptr;
  if (call.drawn) call.drawn = data.drawn.as<dsa::Augmentation>();
  check(dsa::assemble_cuda(call, nullptr) == cudaSuccess, "no launch: " + c.name());
  check(image == data.image, "image of " + c.name());
  check(dsap == data.dsap, "dsap of " + c.name());
}

// Stored images and outputs more than 2^31 elements apart; the memory between is never touched.
void run_far_apart() {
  const Case c{2, 2, 16, 16, 24, 16, 4};
  Random random(9);
  Data data = make(c, random);
  dsa::BatchCall& call = data.call;
  const int64_t step = (int64_t{1} << 31) + 4096;
  const FarMemory images(step + 8192), iuv(step + 8192), expected(4 * step + 65536), got(4 * step + 65536);
  for (int i = 0; i < 2; ++i) {
    std::memcpy(images.as<char>() + i * step, data.images.begin() + i * call.images_stride, 3 * 16 * 16);
    std::memcpy(iuv.as<char>() + i * step, data.iuv.begin() + i * call.iuv_stride, 3 * 16 * 16);
    data.index.as<int64_t>()[i] = 1 - i;
  }
  call.images = images.as<uint8_t>(), call.iuv = iuv.as<uint8_t>();
  call.images_stride = call.iuv_stride = call.image_stride[0] = call.dsap_stride[0] = step;
  const int image_elements = 3 * 24 * 16, dsap_elements = 24 * 3 * 4 * 4;
  const auto write_to = [&](const FarMemory& memory) {
    call.image = memory.as<float>(), call.dsap = memory.as<float>() + image_elements;
  };
  write_to(expected);
  const dsa::BatchTables tables(call);
  for (int b = 0; b < 2; ++b) dsa::assemble_cpu(call, tables, b);
  write_to(got);
  check(dsa::assemble_cuda(call, nullptr) == cudaSuccess, "no launch: batch, far apart");
  for (int b = 0; b < 2; ++b) {
    const size_t bytes = (image_elements + dsap_elements) * sizeof(float);
    check(std::memcmp(got.as<float>() + b * step, expected.as<float>() + b * step, bytes) == 0,
          "batch, far apart");
  }
}

// Stored and wanted length of one side: equal, larger, smaller, much smaller.
void draw_lengths(Random& random, int most, int& stored, int& wanted) {
  stored = 1 + random.below(most);
  wanted = random.pick<int>({stored, stored + random.below(stored + 2), 2 * stored, 1 + stored / 2,
                             1 + random.below(stored), 1 + stored / 9});
}

// The combinations that are drawn: every value of each property occurs many times.
Case draw_case(Random& random) {
  Case c{1 + random.below(3), 1 + random.below(3)};
  draw_lengths(random, 40, c.stored_height, c.height);
  draw_lengths(random, 70, c.stored_width, c.width);
  if (random.below(2)) c.stored_width = (c.stored_width + 15) / 16 * 16;
  if (random.below(2)) c.width = (c.width + 7) / 8 * 8;
  c.size = random.pick<int>({1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 33, 50});
  c.parts = random.pick<int>({24, 24, 13, 8}), c.mirror = c.parts != 24 && random.below(2);
  c.normalise = random.below(2), c.dsap = random.below(8), c.augmented_dsap = random.below(4);
  c.foreign = random.below(6) == 0;
  c.drawn = random.pick<Drawn>({Drawn::any, Drawn::any, Drawn::any, Drawn::null, Drawn::beyond,
                                Drawn::borders, Drawn::none_kept, Drawn::wild});
  c.pixels = random.pick<Pixels>({Pixels::mixed, Pixels::mixed, Pixels::one_cell, Pixels::out_of_range});
  c.layout = static_cast<Layout>(random.below(6));
  c.gap = random.pick<int>({0, 0, 16, 5}), c.offset = random.pick<int>({0, 0, 1});
  return c;
}

void batch_cases() {
  Random random(5);
  for (const Type type : {Type::float16, Type::bfloat16, Type::float32}) {
    for (int i = 0; i < 2 * cases::drawn; ++i) {
      Case c = draw_case(random);
      c.type = type;
      run(c, random.next());
    }
  }
  run_far_apart();
  // What is easily got wrong. The shapes are batch, stored, h, w, H, W, size.
  on_devices([&] {
    for (const Drawn drawn : {Drawn::any, Drawn::beyond, Drawn::borders, Drawn::wild}) {
      Case c{3, 3, 32, 16, 64, 32, 16};
      c.drawn = drawn;
      run(c, 2);
      c.stored_width = 17, c.augmented_dsap = drawn != Drawn::beyond;
      run(c, 3);
    }
    for (const int size : {1, 31, 64, 100, 255, 256}) {  // to many tiles a part image
      Case c{1, 1, 32, 32, 32, 32, size};
      c.parts = 8, c.mirror = true, c.type = size % 2 ? Type::float16 : Type::float32;
      run(c, 4);
    }
    for (const Layout layout : {Layout::planes, Layout::interleaved, Layout::aligned_gaps}) {
      Case c{2, 2, 64, 64, 16, 24, 32};  // four pixels to one and more
      c.layout = layout, c.type = Type::bfloat16, c.pixels = Pixels::out_of_range, c.normalise = true;
      run(c, 5);
    }
    Case rows{1, 1, 48, 16, 96, 128, 1};  // its middle block needs as many stored rows as one can
    rows.dsap = false, rows.drawn = Drawn::null;
    run(rows, 11);
    Case empty{3, 0, 16, 16, 20, 16, 8};
    empty.foreign = true;
    run(empty, 6);
    run({1, 1, 1, 1, 1, 1, 1}, 7);
    run({16, 5, 8, 16, 16, 8, 8}, 8);   // more blocks than multiprocessors
    run({1, 1, 2, 2, 3, 4200, 2}, 9);   // rows that no block finishes in one go, or keeps in shared memory
    run({1, 1, 700, 4, 1, 16, 2}, 10);  // of more taps than it can keep
  });
}

const Suite kBatch("batch", batch_cases);

}  // namespace
