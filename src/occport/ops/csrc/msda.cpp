// Multi-scale deformable attention, forward, wide form: reference points, offsets in pixels and logits go in.
//
//     out[a, q, m] = sum over l, p of softmax(logits[a, q, m])[l, p] * value_l[a, :, m] at (x, y)
//     x = reference_x * w_l + offset_x - 1/2, y likewise; bilinear, a corner outside the map counts as zero
//
// Entry points, for values of float and of bfloat16; everything else is float. Row-major and contiguous but where a stride is given:
//
//     value      (A, S, M, D), the levels one after the other
//     shapes     int64 (L, 2): h, w of each level; their products add up to S
//     reference  (A, Q, L, 2): x, y in [0, 1]
//     offsets    (A, Q, M, L, P, 2): x, y in pixels; contiguous from M on, strides of A and Q are given
//     logits     (A, Q, M, L, P); contiguous from M on, strides of A and Q are given
//     out        (A, Q, M, D), dtype of the value
//     sizes      int64 (12): A, S, M, D, Q, L, P, threads, strides of offsets (A, Q), strides of logits (A, Q), in elements
//
// Every size is at least 1, but for A and Q; S is less than 2^30: the caller checks. All arithmetic is in float. A position that is
// infinite, nan or outside counts as zero and nothing is read there; a logit that is nan or +inf makes its head's whole output nan.
// Each thread keeps a few queries' samples, nothing else is allocated.
//
// A block of queries goes in two steps: first all positions and weights, in vectors over samples; then the reads, in vectors over channels,
// each query's asked for while the one before it is summed: reading is what the time goes into.

#include <type_traits>
#include <vector>

#include "sums.hpp"

namespace {

constexpr int64_t BLOCK = 8;  // queries in a block
constexpr int64_t LINE = 64;  // bytes that come from memory together

struct Attention {
  int64_t images, pixels, heads, head_width, queries, levels, points, threads;
  int64_t offsets_image, offsets_query, logits_image, logits_query;
};

constexpr int32_t TOP_LEFT = 1, TOP_RIGHT = 2, BOTTOM_LEFT = 4, BOTTOM_RIGHT = 8, ALL = 15;

// The samples of a block of queries, (BLOCK, M, L, P) each.
struct Samples {
  std::vector<float> top_left, top_right, bottom_left, bottom_right;  // bilinear weight times attention weight
  std::vector<float> weight;                                          // attention weight
  std::vector<int32_t> pixel;                                         // of the top left corner, in the image's S, were it on the map
  std::vector<int32_t> corners;                                       // which are on the map: sum of the four bits

  explicit Samples(size_t count)
      : top_left(count), top_right(count), bottom_left(count), bottom_right(count), weight(count), pixel(count), corners(count) {}
};

// One level of the value.
struct Level {
  int64_t start, height, width;  // start: its first pixel
};

// Corners and weights of `count` samples from `first` on, all of one query and level.
inline void place(const float* offsets, const float* reference, const Level& level, Samples& to, int64_t first, int64_t count) {
  const float below = float(level.height), beside = float(level.width);
  const float centre_x = reference[0], centre_y = reference[1];
  const int32_t start = int32_t(level.start), height = int32_t(level.height), width = int32_t(level.width);
  float *const top_left = &to.top_left[first], *const top_right = &to.top_right[first];
  float *const bottom_left = &to.bottom_left[first], *const bottom_right = &to.bottom_right[first];
  const float* const weight = &to.weight[first];
  int32_t *const pixel = &to.pixel[first], *const corners = &to.corners[first];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    float x = (centre_x * beside + offsets[2 * i]) - 0.5f, y = (centre_y * below + offsets[2 * i + 1]) - 0.5f;
    x = x > -2.0f ? x : -2.0f;  // nan as well
    y = y > -2.0f ? y : -2.0f;
    x = x < beside ? x : beside;
    y = y < below ? y : below;
    const float left_x = std::floor(x), top_y = std::floor(y);
    const float dx = x - left_x, dy = y - top_y;
    const float upper = weight[i] * (1.0f - dy), lower = weight[i] * dy;
    top_left[i] = upper * (1.0f - dx);
    top_right[i] = upper * dx;
    bottom_left[i] = lower * (1.0f - dx);
    bottom_right[i] = lower * dx;
    const int32_t row = int32_t(top_y), column = int32_t(left_x);
    const int32_t left = (column >= 0) & (column < width), right = (column >= -1) & (column < width - 1);
    const int32_t top = (row >= 0) & (row < height), bottom = (row >= -1) & (row < height - 1);
    pixel[i] = start + row * width + column;
    corners[i] = (top & left) * TOP_LEFT + (top & right) * TOP_RIGHT + (bottom & left) * BOTTOM_LEFT + (bottom & right) * BOTTOM_RIGHT;
  }
}

// What one head of one query reads: its samples, and the value at the image's first pixel and the head's first channel.
template <class T>
struct Reads {
  const T* value;
  const int64_t* shapes;
  const Samples& samples;
  int64_t first;  // sample
  int64_t levels, points, stride;
};

// Asks for the lines that `sum_head` is going to read. An address that is not there is no harm. Always inline: g++ 12 takes a function
// that does nothing but this for one without effects, and drops its calls.
template <class T>
__attribute__((always_inline)) inline void prefetch(const Reads<T>& reads, int64_t count) {
  int64_t sample = reads.first;
  for (int64_t level = 0; level < reads.levels; ++level) {
    const int64_t right = reads.stride * int64_t(sizeof(T)), down = reads.shapes[2 * level + 1] * right;
    for (int64_t point = 0; point < reads.points; ++point, ++sample) {
      if (!reads.samples.corners[sample]) continue;
      const uintptr_t corner = uintptr_t(reads.value) + reads.samples.pixel[sample] * right;
      for (uintptr_t at = corner, end = at + count * sizeof(T); at < end; at += LINE) {
        __builtin_prefetch(reinterpret_cast<const void*>(at));
        __builtin_prefetch(reinterpret_cast<const void*>(at + right));
        __builtin_prefetch(reinterpret_cast<const void*>(at + down));
        __builtin_prefetch(reinterpret_cast<const void*>(at + down + right));
      }
    }
  }
}

// The weighted sum over a head's samples, of the channels that K times `Part` holds, from `channel` on.
template <class Part, int K, class T>
inline void sum_channels(const Reads<T>& reads, int64_t channel, T* out) {
  const Samples& samples = reads.samples;
  const float start = 0.0f * samples.weight[reads.first];  // where one weight of a head is nan, all are, whatever is read
  const T* const value = reads.value + channel;
  Part parts[K];
  for (Part& part : parts) part.begin(start);
  const auto add = [&](int64_t place, float weight) {
    for (int k = 0; k < K; ++k) parts[k].add(value + place + k * Part::WIDTH, weight);
  };
  int64_t sample = reads.first;
  for (int64_t level = 0; level < reads.levels; ++level) {
    const int64_t down = reads.shapes[2 * level + 1] * reads.stride;
    for (int64_t point = 0; point < reads.points; ++point, ++sample) {
      const int64_t left = samples.pixel[sample] * reads.stride, right = left + reads.stride;
      const int32_t corners = samples.corners[sample];
      if (corners == ALL) {
        add(left, samples.top_left[sample]);
        add(right, samples.top_right[sample]);
        add(left + down, samples.bottom_left[sample]);
        add(right + down, samples.bottom_right[sample]);
      } else {
        if (corners & TOP_LEFT) add(left, samples.top_left[sample]);
        if (corners & TOP_RIGHT) add(right, samples.top_right[sample]);
        if (corners & BOTTOM_LEFT) add(left + down, samples.bottom_left[sample]);
        if (corners & BOTTOM_RIGHT) add(right + down, samples.bottom_right[sample]);
      }
    }
  }
  for (int k = 0; k < K; ++k) parts[k].store(out + channel + k * Part::WIDTH);
}

// Channels in K parts at a time, as many as there are.
template <class Part, int K, class T>
inline int64_t sum_parts(const Reads<T>& reads, int64_t channel, int64_t count, T* out) {
  for (; count - channel >= K * Part::WIDTH; channel += K * Part::WIDTH) sum_channels<Part, K>(reads, channel, out);
  return channel;
}

// All channels of one head: in wide vectors as long as they last, then in narrower ones.
template <class T>
inline void sum_head(const Reads<T>& reads, int64_t count, T* out) {
  int64_t channel = sum_parts<Sum<T, LANES>, 4>(reads, 0, count, out);
  channel = sum_parts<Sum<T, LANES>, 2>(reads, channel, count, out);
  channel = sum_parts<Sum<T, LANES>, 1>(reads, channel, count, out);
  channel = sum_parts<Sum<T, LANES / 2>, 1>(reads, channel, count, out);
  channel = sum_parts<Sum<T, LANES / 4>, 1>(reads, channel, count, out);
  channel = sum_parts<Sum<T, 1>, 1>(reads, channel, count, out);
  if constexpr (std::is_same_v<T, Bf16>) sum_parts<LastSum, 1>(reads, channel, count, out);
}

// Softmax, corners and weights of one query.
inline void place_query(
    const Attention& s, const int64_t* shapes, const float* reference, const float* offsets, const float* logits, Samples& to,
    int64_t first) {
  softmax(logits, &to.weight[first], s.heads, s.levels * s.points);
  Level level{0, shapes[0], shapes[1]};
  if (s.levels == 1) return place(offsets, reference, level, to, first, s.heads * s.points);
  for (int64_t i = 0; i < s.levels; ++i) {
    level.height = shapes[2 * i];
    level.width = shapes[2 * i + 1];
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t sample = (head * s.levels + i) * s.points;
      place(offsets + 2 * sample, reference + 2 * i, level, to, first + sample, s.points);
    }
    level.start += level.height * level.width;
  }
}

template <class T>
void attention(
    const T* value, const int64_t* shapes, const float* reference, const float* offsets, const float* logits, T* out,
    const int64_t* sizes) {
  Attention s;
  std::memcpy(&s, sizes, sizeof s);
  const int64_t share = s.levels * s.points, count = s.heads * share, stride = s.heads * s.head_width;
  const int64_t slots = s.images * s.queries, blocks = (slots + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(int(s.threads))
  {
    Samples samples(size_t(BLOCK * count));
    const auto reads = [&](int64_t slot, int64_t head) {
      const T* const image = value + slot / s.queries * s.pixels * stride;
      return Reads<T>{image + head * s.head_width, shapes, samples, slot % BLOCK * count + head * share, s.levels, s.points, stride};
    };
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * BLOCK, last = std::min(first + BLOCK, slots);
      for (int64_t slot = first; slot < last; ++slot) {
        const int64_t image = slot / s.queries, query = slot % s.queries;
        const float* const offset = offsets + image * s.offsets_image + query * s.offsets_query;
        const float* const logit = logits + image * s.logits_image + query * s.logits_query;
        place_query(s, shapes, reference + slot * s.levels * 2, offset, logit, samples, slot % BLOCK * count);
      }
      for (int64_t slot = first; slot < last; ++slot) {
        for (int64_t head = 0; head < s.heads && slot + 1 < last; ++head) prefetch(reads(slot + 1, head), s.head_width);
        for (int64_t head = 0; head < s.heads; ++head) {
          sum_head(reads(slot, head), s.head_width, out + slot * stride + head * s.head_width);
        }
      }
    }
  }
}

}  // namespace

extern "C" {

void occport_attention_float(
    const float* value, const int64_t* shapes, const float* reference, const float* offsets, const float* logits, float* out,
    const int64_t* sizes) {
  attention(value, shapes, reference, offsets, logits, out, sizes);
}

void occport_attention_bfloat16(
    const Bf16* value, const int64_t* shapes, const float* reference, const float* offsets, const float* logits, Bf16* out,
    const int64_t* sizes) {
  attention(value, shapes, reference, offsets, logits, out, sizes);
}
}
