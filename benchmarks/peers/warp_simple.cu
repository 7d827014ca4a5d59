// The warp as one writes it for a GPU in an hour, for planes of uint8 and float32 part images; CuPy compiles
// it with -DSIZE=S. `scatter` and `gather` keep the last pixel of a cell, as dsa_ext does. `splat` and
// `average` sum what meets there and divide by the count, as forward splatting does (softmax-splatting).

__device__ int cell_of(const unsigned char* iuv, int pixels, int image, int pixel) {
  const unsigned char* from = iuv + 3LL * image * pixels + pixel;
  const int part = from[0];
  if (part == 0 || part > 24) return -1;
  const int row = min(from[pixels] * SIZE / 255, SIZE - 1);
  const int column = min(from[2 * pixels] * SIZE / 255, SIZE - 1);
  return ((image * 24 + part - 1) * SIZE + row) * SIZE + column;
}

extern "C" __global__ void scatter(const unsigned char* iuv, int* winner, int pixels, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int pixel = at % pixels, cell = cell_of(iuv, pixels, at / pixels, pixel);
  if (cell >= 0) atomicMax(&winner[cell], pixel);
}

extern "C" __global__ void gather(const unsigned char* images, const int* winner, float* out, int pixels,
                                  int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int cell = at % (SIZE * SIZE), part = at / (SIZE * SIZE), pixel = winner[at];
  const unsigned char* from = images + 3LL * (part / 24) * pixels + (pixel < 0 ? 0 : pixel);
  for (int c = 0; c < 3; ++c) {
    out[(3LL * part + c) * (SIZE * SIZE) + cell] = pixel < 0 ? 0.f : from[1LL * c * pixels] / 255.f;
  }
}

extern "C" __global__ void splat(const unsigned char* images, const unsigned char* iuv, float* out,
                                 float* weight, int pixels, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int image = at / pixels, pixel = at % pixels, cell = cell_of(iuv, pixels, image, pixel);
  if (cell < 0) return;
  const int part = cell / (SIZE * SIZE), place = cell % (SIZE * SIZE);
  for (int c = 0; c < 3; ++c) {
    atomicAdd(&out[(3LL * part + c) * (SIZE * SIZE) + place],
              images[(3LL * image + c) * pixels + pixel] / 255.f);
  }
  atomicAdd(&weight[cell], 1.f);
}

extern "C" __global__ void average(float* out, const float* weight, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int cell = at % (SIZE * SIZE), part = at / (SIZE * SIZE);
  if (weight[at] < 2.f) return;
  for (int c = 0; c < 3; ++c) out[(3LL * part + c) * (SIZE * SIZE) + cell] /= weight[at];
}
