// The warp from plain C++: an image and its IUV map become 24 part images, written side by side
// into one picture.
//
//   cmake -S . -B build/cmake && cmake --build build/cmake         in the project's root
//   cmake --install build/cmake --prefix build/installed
//   cmake -S examples/cpp -B build/example -DCMAKE_PREFIX_PATH=$PWD/build/installed
//   cmake --build build/example && build/example/part_images parts.ppm
#include <dsa/warp.h>

#include <algorithm>
#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  constexpr int kHeight = 192, kWidth = 128, kSize = 32;

  // A stand-in for a photo and its DensePose map: a colour ramp, and a "body" of 6 x 4 patches, one
  // for each part, in an ellipse on an empty background. U runs down a patch, V across it.
  std::vector<uint8_t> image(kHeight * kWidth * 3), iuv(kHeight * kWidth * 3);  // [H, W, 3]
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) {
      const int pixel = (y * kWidth + x) * 3;
      const uint8_t rgb[] = {uint8_t(y), uint8_t(2 * x), uint8_t(255 - y)};
      const uint8_t map[] = {uint8_t(y / 32 * 4 + x / 32 + 1), uint8_t(y % 32 * 8), uint8_t(x % 32 * 8)};
      const float down = (y - 95.5f) / 95.5f, across = (x - 63.5f) / 63.5f;
      std::copy_n(rgb, 3, &image[pixel]);
      if (down * down + across * across <= 1.f) std::copy_n(map, 3, &iuv[pixel]);  // else I = 0
    }
  }

  // The call describes memory by pointer and strides, so any layout is read and written without a copy.
  // Here the part images [24, 3, S, S] are strided to lie side by side in one picture [S, 24 * S, 3].
  std::vector<uint8_t> sheet(kSize * 24 * kSize * 3);
  std::vector<int32_t> source(24 * kSize * kSize);  // which pixel each cell shows, -1: none
  const float fill[3] = {64, 64, 64};               // what empty cells hold, one value a channel
  const dsa::Normalise unchanged[3] = {};
  dsa::WarpImages call{
      .batch = 1,
      .channels = 3,
      .height = kHeight,
      .width = kWidth,
      .size = kSize,
      .parts = 24,
      .mirror = false,
      .image = image.data(),
      .image_type = dsa::Type::uint8,
      .image_stride = {kHeight * kWidth * 3, 1, kWidth * 3, 3},  // B, C, H, W
      .iuv = iuv.data(),
      .iuv_is_float = false,
      .iuv_stride = {kHeight * kWidth * 3, 1, kWidth * 3, 3},  // B, (I, U, V), H, W
      .out = sheet.data(),
      .out_type = dsa::Type::uint8,
      .out_stride = {kSize * 24 * kSize * 3, kSize * 3, 1, 24 * kSize * 3, 3},  // B, P, C, S, S
      .source = source.data(),
      .fill = fill,
      .normalise = unchanged};
  // Image 0, all its parts. Other images, or other ranges of parts, may run on other threads.
  // It returns false for a floating map with impossible values, such as U and V in 0..255.
  if (!dsa::warp_cpu(call, 0, 0, 24)) return std::fputs("the IUV map makes no sense\n", stderr), 1;

  const auto filled = source.size() - std::count(source.begin(), source.end(), -1);
  std::printf("%zu of %zu cells show a pixel\n", filled, source.size());
  if (argc < 2) return 0;
  std::FILE* file = std::fopen(argv[1], "wb");
  if (!file) return std::perror(argv[1]), 1;
  std::fprintf(file, "P6 %d %d 255\n", 24 * kSize, kSize);
  const bool written = std::fwrite(sheet.data(), 1, sheet.size(), file) == sheet.size();
  return std::fclose(file) == 0 && written ? 0 : 1;
}
