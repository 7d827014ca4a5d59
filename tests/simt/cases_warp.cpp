// Cases of the warp and of its gradient: the kernels against the CPU backend, bit for bit.
#include "cases.h"
#include "simt.h"
#include "warp.h"

using namespace cases;

namespace {

enum class Pixels { mixed, background, one_cell, out_of_range };
enum class Layout { planes, interleaved, padded, unaligned };

struct Case {
  int batch, channels, height, width, size;
  int parts = 24;
  bool mirror = false;
  Type in = Type::uint8, out = Type::float32;
  bool float_iuv = false, source = true, normalise = false;
  Pixels pixels = Pixels::mixed;
  Layout image_layout = Layout::planes, iuv_layout = Layout::planes, out_layout = Layout::planes;

  std::string name() const {
    char text[256];
    std::snprintf(text, sizeof text,
                  "%dx%dx%dx%d to %d x %d x %d%s, %s to %s, iuv %s, layouts %d %d %d, pixels %d%s%s, "
                  "%d KiB shared, %d multiprocessors",
                  batch, channels, height, width, parts, size, size, mirror ? " mirrored" : "", name_of(in),
                  name_of(out), float_iuv ? "float32" : "uint8", int(image_layout), int(iuv_layout),
                  int(out_layout), int(pixels), source ? ", source" : "", normalise ? ", normalised" : "",
                  simt::settings.shared_bytes >> 10, simt::settings.multiprocessors);
    return text;
  }
};

size_t offset_of(Layout layout, Type type) { return layout == Layout::unaligned ? bytes_of(type) : 0; }

// [B, C, H, W] by layout; the number of elements it spans.
int64_t image_strides(Layout layout, const int (&shape)[4], int64_t (&stride)[4]) {
  if (layout == Layout::interleaved) return strides(shape, {0, 2, 3, 1}, 0, stride);
  return strides(shape, {0, 1, 2, 3}, layout == Layout::padded ? 3 : 0, stride);
}
int64_t out_strides(Layout layout, const int (&shape)[5], int64_t (&stride)[5]) {
  if (layout == Layout::interleaved) return strides(shape, {0, 1, 3, 4, 2}, 0, stride);
  return strides(shape, {0, 1, 2, 3, 4}, layout == Layout::padded ? 1 : 0, stride);
}

// A seldom value of I (plane 0), or of u or v, in floating maps; out of range, also one that no map has.
float odd_value(Random& random, int plane, bool out_of_range) {
  const float nan = __builtin_nanf(""), far = __builtin_inff();
  if (out_of_range) return random.pick<float>({-1.f, 2.f, 255.f, 24.5f, nan, far, -far});
  return plane ? random.pick<float>({-0.01f, 1.01f, 1.f, nan}) : random.pick<float>({-1.f, 25.f, 1.f, nan});
}

void set_iuv(Random& random, const Case& c, const Memory& iuv, const int64_t (&stride)[4]) {
  for (int b = 0; b < c.batch; ++b) {
    for (int y = 0; y < c.height; ++y) {
      // Runs of one part, as in a person; background between them.
      int part = 0, left = 0;
      for (int x = 0; x < c.width; ++x) {
        if (left-- == 0) left = random.below(24), part = random.below(3) ? 1 + random.below(24) : 0;
        int i = part, u = random.below(256), v = random.below(256);
        if (c.pixels == Pixels::background) i = 0;
        if (c.pixels == Pixels::one_cell) i = 7, u = 100, v = 200;
        if (c.pixels == Pixels::out_of_range && random.below(2)) i = random.below(256);
        const int value[3] = {i, u, v};
        for (int plane = 0; plane < 3; ++plane) {
          const int64_t at = b * stride[0] + plane * stride[1] + y * stride[2] + x * stride[3];
          if (!c.float_iuv) {
            iuv.as<uint8_t>()[at] = static_cast<uint8_t>(value[plane]);
            continue;
          }
          float f = plane ? value[plane] / 255.f : static_cast<float>(value[plane]);
          if (random.below(40) == 0) f = odd_value(random, plane, c.pixels == Pixels::out_of_range);
          iuv.as<float>()[at] = f;
        }
      }
    }
  }
}

// Everything a call points to.
struct Data {
  Memory image, iuv, out, source;
  std::vector<float> fill;
  std::vector<dsa::Normalise> normalise;
  dsa::WarpImages call{};
};

Data make(const Case& c, Random& random) {
  int64_t image_stride[4], iuv_stride[4], out_stride[5];
  const int64_t image_elements =
      image_strides(c.image_layout, {c.batch, c.channels, c.height, c.width}, image_stride);
  const int64_t iuv_elements = image_strides(c.iuv_layout, {c.batch, 3, c.height, c.width}, iuv_stride);
  const int64_t out_elements =
      out_strides(c.out_layout, {c.batch, c.parts, c.channels, c.size, c.size}, out_stride);
  const Type iuv_type = c.float_iuv ? Type::float32 : Type::uint8;
  Data data{Memory(image_elements * bytes_of(c.in), offset_of(c.image_layout, c.in)),
            Memory(iuv_elements * bytes_of(iuv_type), offset_of(c.iuv_layout, iuv_type)),
            Memory(out_elements * bytes_of(c.out), offset_of(c.out_layout, c.out)),
            Memory(size_t(c.batch) * c.parts * c.size * c.size * 4, offset_of(c.out_layout, Type::float32)),
            {},
            {}};
  draw_all(random, c.in, data.image);
  set_iuv(random, c, data.iuv, iuv_stride);
  for (int channel = 0; channel < c.channels; ++channel) {
    data.fill.push_back(c.out == Type::uint8 ? random.below(256) : random.uniform());
    dsa::Normalise n;
    if (c.normalise) n = {true, random.uniform(), 0.1f + random.uniform()};
    data.normalise.push_back(n);
  }
  dsa::WarpImages& call = data.call;
  call.batch = c.batch, call.channels = c.channels, call.height = c.height, call.width = c.width;
  call.size = c.size, call.parts = c.parts, call.mirror = c.mirror;
  call.image = data.image.begin(), call.image_type = c.in;
  call.iuv = data.iuv.begin(), call.iuv_is_float = c.float_iuv;
  call.out = data.out.begin(), call.out_type = c.out;
  call.source = c.source ? data.source.as<int32_t>() : nullptr;
  call.fill = data.fill.data(), call.normalise = data.normalise.data();
  std::memcpy(call.image_stride, image_stride, sizeof image_stride);
  std::memcpy(call.iuv_stride, iuv_stride, sizeof iuv_stride);
  std::memcpy(call.out_stride, out_stride, sizeof out_stride);
  return data;
}

// The CPU backend on all images. It must take every map that is not out of range.
void run_on_cpu(const Case& c, const dsa::WarpImages& call) {
  bool taken = true;
  for (int b = 0; b < c.batch; ++b) taken &= dsa::warp_cpu(call, b, 0, c.parts);
  check(taken || c.pixels == Pixels::out_of_range, "the map is refused: " + c.name());
}

void run(const Case& c, uint64_t seed) {
  Random random(seed);
  const Data data = make(c, random);
  Memory out(data.out.bytes, data.out.offset), source(data.source.bytes, data.source.offset);
  dsa::WarpImages call = data.call;
  run_on_cpu(c, call);
  call.out = out.begin();
  if (c.source) call.source = source.as<int32_t>();
  check(dsa::warp_cuda(call, nullptr) == cudaSuccess, "no launch: " + c.name());
  check(out == data.out, c.name());
  check(source == data.source, "source of " + c.name());
}

void run_gradient(const Case& c, uint64_t seed) {
  Random random(seed);
  const Data data = make(c, random);
  run_on_cpu(c, data.call);
  int64_t stride[5];
  const int64_t elements = out_strides(c.out_layout, {c.batch, c.parts, c.channels, c.size, c.size}, stride);
  const Memory grad(elements * bytes_of(c.out), offset_of(c.out_layout, c.out));
  draw_all(random, c.out, grad);
  const size_t bytes = size_t(c.batch) * c.channels * c.height * c.width * bytes_of(c.in);
  Memory expected(bytes, offset_of(c.image_layout, c.in)), got(bytes, offset_of(c.image_layout, c.in));
  dsa::WarpGradient call{};
  call.batch = c.batch, call.channels = c.channels, call.height = c.height, call.width = c.width;
  call.size = c.size, call.parts = c.parts;
  call.grad = grad.begin(), call.grad_type = c.out;
  std::memcpy(call.grad_stride, stride, sizeof stride);
  call.source = data.source.as<int32_t>();
  call.image_type = c.in, call.normalise = data.normalise.data();
  call.grad_image = expected.begin();
  for (int b = 0; b < c.batch; ++b) dsa::warp_gradient_cpu(call, b);
  call.grad_image = got.begin();
  check(dsa::warp_gradient_cuda(call, nullptr) == cudaSuccess, "no launch: gradient of " + c.name());
  check(got == expected, "gradient of " + c.name());
}

// Two images that lie more than 2^31 elements apart, in and out; the memory between is never touched.
void run_far_apart() {
  const int64_t step = (int64_t{1} << 31) + 4096;
  const Case c{2, 1, 16, 16, 4};
  Random random(9);
  const FarMemory far[4] = {FarMemory(step + 8192), FarMemory(step + 8192), FarMemory(step + 8192),
                            FarMemory(step + 8192)};
  uint8_t *image = far[0].as<uint8_t>(), *iuv = far[1].as<uint8_t>();
  uint8_t *expected = far[2].as<uint8_t>(), *got = far[3].as<uint8_t>();
  for (int b = 0; b < 2; ++b) {
    for (int i = 0; i < 256; ++i) {
      image[b * step + i] = static_cast<uint8_t>(random.next());
      for (int plane = 0; plane < 3; ++plane) {
        iuv[b * step + plane * 256 + i] = static_cast<uint8_t>(random.below(plane ? 256 : 25));
      }
    }
  }
  const float fill[1] = {7};
  const dsa::Normalise normalise[1] = {};
  dsa::WarpImages call{2,
                       1,
                       16,
                       16,
                       4,
                       24,
                       false,
                       image,
                       Type::uint8,
                       {step, 256, 16, 1},
                       iuv,
                       false,
                       {step, 256, 16, 1},
                       expected,
                       Type::uint8,
                       {step, 16, 16, 4, 1},
                       nullptr,
                       fill,
                       normalise};
  for (int b = 0; b < 2; ++b) check(dsa::warp_cpu(call, b, 0, 24), "a map of images far apart is refused");
  call.out = got;
  check(dsa::warp_cuda(call, nullptr) == cudaSuccess, "no launch: images far apart");
  for (int b = 0; b < 2; ++b) {
    check(std::memcmp(got + b * step, expected + b * step, 24 * 16) == 0, "images far apart");
  }
}

// The combinations that are drawn: every value of each property occurs many times.
Case draw_case(Random& random) {
  Case c{1 + random.below(3), 1 + random.below(5), 1 + random.below(40), 1 + random.below(70),
         random.pick<int>({1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 33, 50})};
  c.parts = random.pick<int>({24, 24, 13, 8});
  c.mirror = c.parts != 24 && random.below(2);
  c.float_iuv = random.below(4) == 0;
  c.source = random.below(2);
  c.pixels = random.pick<Pixels>({Pixels::mixed, Pixels::mixed, Pixels::mixed, Pixels::out_of_range});
  for (Layout* layout : {&c.image_layout, &c.iuv_layout, &c.out_layout}) {
    *layout = static_cast<Layout>(random.below(4));
  }
  if (random.below(2)) c.height = (c.height + 3) / 4 * 4, c.width = (c.width + 15) / 16 * 16;
  return c;
}

constexpr Type kTypes[] = {Type::uint8, Type::float16, Type::bfloat16, Type::float32};

void warp_cases() {
  Random random(1);
  // Every pair of types, with everything else drawn.
  for (const Type in : kTypes) {
    for (const Type out : kTypes) {
      if (out == Type::uint8 && in != Type::uint8) continue;
      for (int i = 0; i < cases::drawn; ++i) {
        Case c = draw_case(random);
        c.in = in, c.out = out;
        c.normalise = out != Type::uint8 && random.below(2);
        run(c, random.next());
      }
    }
  }
  run_far_apart();
  // What is easily got wrong. The shapes are batch, channels, height, width, size.
  on_devices([&] {
    for (const Pixels pixels : {Pixels::background, Pixels::one_cell, Pixels::out_of_range}) {
      Case c{2, 3, 33, 48, 32};
      c.pixels = pixels;
      run(c, 2);
      c.float_iuv = true, c.in = Type::float32;
      run(c, 3);
    }
    for (const int size : {1, 31, 64, 100, 128, 255, 256}) {  // to many tiles a part image
      Case c{1, 1, 64, 32, size};
      c.parts = 8, c.out = size % 2 ? Type::float16 : Type::uint8;
      run(c, 4);
    }
    for (const Layout layout : {Layout::planes, Layout::interleaved}) {
      Case c{1, 3, 300, 272, 32};  // pixel indices beyond 16 bits
      c.out_layout = c.iuv_layout = c.image_layout = layout, c.normalise = true;
      run(c, 5);
    }
    run(Case{1, 1, 1, 1, 1}, 6);
    run(Case{1, 19, 20, 16, 4}, 7);  // more channels than a launch takes
    run(Case{40, 3, 8, 4, 8}, 8);    // more blocks than multiprocessors
  });
}

void gradient_cases() {
  Random random(2);
  const Type floating[] = {Type::float16, Type::bfloat16, Type::float32};
  for (const Type in : floating) {
    for (const Type out : floating) {
      for (int i = 0; i < (cases::drawn + 1) / 2; ++i) {
        Case c = draw_case(random);
        c.in = in, c.out = out, c.source = true, c.normalise = random.below(2);
        run_gradient(c, random.next());
      }
    }
  }
  on_devices([&] {
    for (const Pixels pixels : {Pixels::background, Pixels::one_cell}) {
      Case c{2, 3, 33, 48, 32};
      c.pixels = pixels, c.in = Type::float32;
      run_gradient(c, 2);
    }
    Case c{1, 11, 300, 272, 16};  // more channels than a launch takes, pixels beyond 16 bits
    c.in = Type::float16;
    run_gradient(c, 3);
  });
}

const Suite kWarp("warp", warp_cases);
const Suite kWarpGradient("warp-gradient", gradient_cases);

}  // namespace
