// Group normalisation, affine, with ReLU (Wu and He, ECCV 2018), of maps whose channels are innermost, float and bfloat16 in, float out.
//
// Entry points occport_group_norm_float and _bfloat16 take x (B, P, C), weight (C), bias (C), out (B, P, C), room for the sums, double
// (threads, 2, C), and sizes {B, P, C, G, threads, epsilon * 1e12}. Sums are in double: a float's rounding would show at a million positions.

#include <algorithm>
#include <cmath>

#include "bilinear.hpp"

namespace {

constexpr int64_t BLOCK = 256;  // positions between two look-ups of the sums

struct Norm {
  int64_t samples, positions, channels, groups, threads, epsilon;
};

// Sums and sums of squares of each channel over positions [first, last), added to sums (2, C).
template <class T>
void add_up(const T* x, int64_t first, int64_t last, int64_t channels, double* sums) {
  for (int64_t position = first; position < last; ++position) {
    const T* const row = x + position * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const double value = double(read(row[c]));
      sums[c] += value;
      sums[channels + c] += value * value;
    }
  }
}

// Sums (threads, 2, C) → in sums[0] and sums[1] the scale and the shift of each channel.
void affine(const float* weight, const float* bias, double* sums, const Norm& s) {
  const int64_t width = s.channels / s.groups;
  const double count = double(width) * double(s.positions);
  for (int64_t group = 0; group < s.groups; ++group) {
    double sum = 0.0, squares = 0.0;
    for (int64_t thread = 0; thread < s.threads; ++thread) {
      const double* const own = sums + thread * 2 * s.channels;
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        sum += own[c];
        squares += own[s.channels + c];
      }
    }
    const double mean = sum / count;
    const double spread = squares / count - mean * mean;
    const double scale = 1.0 / std::sqrt((spread < 0.0 ? 0.0 : spread) + double(s.epsilon) * 1e-12);  // a nan stays one
    for (int64_t c = group * width; c < (group + 1) * width; ++c) {
      sums[c] = scale * weight[c];
      sums[s.channels + c] = bias[c] - mean * scale * weight[c];
    }
  }
}

template <class T>
void group_norm(const T* x, const float* weight, const float* bias, float* out, double* sums, const Norm& s) {
  const int64_t share = (s.positions + s.threads - 1) / s.threads;
  for (int64_t sample = 0; sample < s.samples; ++sample) {
    const T* const from = x + sample * s.positions * s.channels;
    float* const into = out + sample * s.positions * s.channels;
    std::fill(sums, sums + s.threads * 2 * s.channels, 0.0);
#pragma omp parallel for schedule(static) num_threads(int(s.threads))
    for (int64_t thread = 0; thread < s.threads; ++thread) {
      add_up(from, std::min(thread * share, s.positions), std::min((thread + 1) * share, s.positions), s.channels, sums + thread * 2 * s.channels);
    }
    affine(weight, bias, sums, s);
#pragma omp parallel for schedule(static) num_threads(int(s.threads))
    for (int64_t first = 0; first < s.positions; first += BLOCK) {
      for (int64_t position = first; position < std::min(first + BLOCK, s.positions); ++position) {
        const T* const row = from + position * s.channels;
        float* const target = into + position * s.channels;
#pragma omp simd
        for (int64_t c = 0; c < s.channels; ++c) {
          const float value = float(double(read(row[c])) * sums[c] + sums[s.channels + c]);
          target[c] = value < 0.0f ? 0.0f : value;
        }
      }
    }
  }
}

}  // namespace

extern "C" {

void occport_group_norm_float(const float* x, const float* weight, const float* bias, float* out, double* sums, const int64_t* sizes) {
  Norm s;
  std::memcpy(&s, sizes, sizeof s);
  group_norm(x, weight, bias, out, sums, s);
}

void occport_group_norm_bfloat16(const Bf16* x, const float* weight, const float* bias, float* out, double* sums, const int64_t* sizes) {
  Norm s;
  std::memcpy(&s, sizes, sizeof s);
  group_norm(x, weight, bias, out, sums, s);
}
}
