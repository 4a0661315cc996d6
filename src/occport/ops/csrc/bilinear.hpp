// What the two kernels share: float and bfloat16 in memory, arithmetic in float, and the four neighbours of a position.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct Bf16 {
  uint16_t bits;
};

inline float read(float value) { return value; }

inline float read(Bf16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline void write(float* place, float value) { *place = value; }

// Round to nearest, ties to even; a nan stays one.
inline void write(Bf16* place, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  place->bits = nan ? uint16_t(0x7fc0) : uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The neighbours of a position that are on the map, `count` of them (1, 2 or 4; 0 where `inside` is false): index of the pixel in the
// row-major map, and weight. Slots past `count` have weight 0 and a pixel that exists, so that a kernel may also read all four.
struct Corners {
  int64_t pixel[4];
  float weight[4];
  int count;
  bool inside;
};

// Position in pixels, the first pixel's middle at 0. Positions that are nan, infinite, or a pixel or more outside have no neighbours.
inline Corners corners(float y, float x, int64_t height, int64_t width) {
  Corners found;
  found.count = 0;
  found.inside = height > 0 && width > 0 && y > -1.0f && x > -1.0f && y < float(height) && x < float(width);  // false for nan
  if (!found.inside) return found;
  const float top = std::floor(y), left = std::floor(x);
  const float down = y - top, right = x - left;
  const int64_t y0 = int64_t(top), x0 = int64_t(left);
  if (y0 >= 0 && x0 >= 0 && y0 + 1 < height && x0 + 1 < width) {
    const int64_t first = y0 * width + x0;
    found.count = 4;
    found.pixel[0] = first, found.pixel[1] = first + 1, found.pixel[2] = first + width, found.pixel[3] = first + width + 1;
    found.weight[0] = (1.0f - down) * (1.0f - right), found.weight[1] = (1.0f - down) * right;
    found.weight[2] = down * (1.0f - right), found.weight[3] = down * right;
    return found;
  }
  for (int i = 0; i < 4; ++i) {
    const int64_t row = y0 + i / 2, column = x0 + i % 2;
    if (row < 0 || column < 0 || row >= height || column >= width) continue;
    found.pixel[found.count] = row * width + column;
    found.weight[found.count] = (i / 2 ? down : 1.0f - down) * (i % 2 ? right : 1.0f - right);
    ++found.count;
  }
  for (int i = found.count; i < 4; ++i) found.pixel[i] = found.pixel[0], found.weight[i] = 0.0f;
  return found;
}

}  // namespace
