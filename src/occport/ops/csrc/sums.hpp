// Vectors that any compiler with GNU extensions cuts to what the processor has: weighted sums of channels, and the softmax.

#pragma once

#include "bilinear.hpp"

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

template <int N>
struct Vector {
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef uint32_t Words __attribute__((vector_size(4 * N)));
};

// The weighted sum of N channels.
template <class T, int N>
struct Sum;

template <int N>
struct Sum<float, N> {
  static constexpr int WIDTH = N;
  typename Vector<N>::Floats sum;

  void begin(float start) { sum = typename Vector<N>::Floats{} + start; }

  void add(const float* from, float weight) {
    typename Vector<N>::Floats values;
    std::memcpy(&values, from, sizeof values);
    sum += weight * values;
  }

  void store(float* to) const { std::memcpy(to, &sum, sizeof sum); }
};

// Of 2 * N channels, two in each word: the even ones are its lower half. Nothing has to be widened or interleaved.
template <int N>
struct Sum<Bf16, N> {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "two bfloat16 in a word: the first is the lower half");
  static constexpr int WIDTH = 2 * N;
  using Floats = typename Vector<N>::Floats;
  using Words = typename Vector<N>::Words;
  Floats even, odd;

  void begin(float start) { even = odd = Floats{} + start; }

  void add(const Bf16* from, float weight) {
    Words words;
    std::memcpy(&words, from, sizeof words);
    even += weight * floats(words << 16);
    odd += weight * floats(words & 0xffff0000u);
  }

  void store(Bf16* to) const {
    const Words words = (rounded(even) >> 16) | rounded(odd);
    std::memcpy(to, &words, sizeof words);
  }

  static Floats floats(Words words) {
    Floats values;
    std::memcpy(&values, &words, sizeof values);
    return values;
  }

  // The bfloat16 in the upper half, zeros in the lower one: as `write` rounds.
  static Words rounded(Floats values) {
    Words bits;
    std::memcpy(&bits, &values, sizeof bits);
    const Words nan = Words((bits & 0x7fffffffu) > 0x7f800000u);  // all ones where it is one
    const Words near = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    return (nan & 0x7fc00000u) | (~nan & near);
  }
};

// The last channel of an odd number of bfloat16.
struct LastSum {
  static constexpr int WIDTH = 1;
  float sum;
  void begin(float start) { sum = start; }
  void add(const Bf16* from, float weight) { sum += weight * read(*from); }
  void store(Bf16* to) const { write(to, sum); }
};

// e^x for x <= 0, within 2e-7 of itself; 0 below -87, nan for nan.
inline float exponential(float x) {
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  const float above = x < -87.0f ? -87.0f : x;
  const float shifted = above * 1.44269504f + ROUND, whole = shifted - ROUND;
  const float rest = (above - whole * 0.693359375f) + whole * 2.12194440e-4f;  // minus whole * ln 2, in two parts
  float sum = 1.0f / 720.0f;
  sum = sum * rest + 1.0f / 120.0f;
  sum = sum * rest + 1.0f / 24.0f;
  sum = sum * rest + 1.0f / 6.0f;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;  // 2^whole
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.0f ? 0.0f : sum * scale;
}

// Softmax over each of `heads` rows of `count`.
inline void softmax(const float* logits, float* weight, int64_t heads, int64_t count) {
  for (int64_t head = 0; head < heads; ++head) {
    const float* const from = logits + head * count;
    float largest = from[0];
    for (int64_t i = 1; i < count; ++i) largest = std::max(largest, from[i]);
    for (int64_t i = 0; i < count; ++i) weight[head * count + i] = from[i] - largest;  // nan for nan, and for inf - inf
  }
#pragma omp simd
  for (int64_t i = 0; i < heads * count; ++i) weight[i] = exponential(weight[i]);
  for (int64_t head = 0; head < heads; ++head) {
    float sum = 0.0f;
    for (int64_t i = 0; i < count; ++i) sum += weight[head * count + i];
    const float scale = 1.0f / sum;
    for (int64_t i = 0; i < count; ++i) weight[head * count + i] *= scale;
  }
}

}  // namespace
