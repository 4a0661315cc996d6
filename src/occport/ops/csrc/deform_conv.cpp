// The im2col of a modulated deformable convolution (DCNv2; Zhu et al. 2019), for float and bfloat16 images; the matrix product that
// follows is PyTorch's.
//
// void occport_columns_{float,bfloat16}(image, offset, mask, columns, sizes)
//   image    (H, W, C), packed, of the kernel's dtype: a sample reads its channels side by side
//   offset   float: channel (group * taps + tap) * 2 is dy, the next one dx, at strides of their own
//   mask     float: channel group * taps + tap, at strides of its own
//   columns  (last - first, groups, taps, C / groups), packed, of the kernel's dtype
//   sizes    the int64 numbers of `Sizes`, in its order
//
// All arithmetic is in float. Neighbours outside the map, and positions that are infinite or nan, count as zero and are never read. Nothing
// is allocated and nothing is kept; the caller checks shapes.

#include "bilinear.hpp"

namespace {

struct Sizes {
  int64_t height, width, channels, out_width;
  int64_t kernel_h, kernel_w, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x, groups, deform_groups;
  int64_t first, last, threads;                     // output positions, row-major
  int64_t offset_channel, offset_row, offset_column;  // strides, in floats
  int64_t mask_channel, mask_row, mask_column;
};

// One sample: `count` channels at `image` of the pixels in `at`, times `scale`.
template <class T>
inline void sample(const T* image, int64_t channels, const Corners& at, float scale, T* out, int64_t count) {
  if (at.count == 4) {
    const T* const p0 = image + at.pixel[0] * channels;
    const T* const p1 = image + at.pixel[1] * channels;
    const T* const p2 = image + at.pixel[2] * channels;
    const T* const p3 = image + at.pixel[3] * channels;
    const float w0 = at.weight[0], w1 = at.weight[1], w2 = at.weight[2], w3 = at.weight[3];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      write(out + i, (w0 * read(p0[i]) + w1 * read(p1[i]) + w2 * read(p2[i]) + w3 * read(p3[i])) * scale);
    }
  } else if (at.count == 2) {
    const T* const p0 = image + at.pixel[0] * channels;
    const T* const p1 = image + at.pixel[1] * channels;
    const float w0 = at.weight[0], w1 = at.weight[1];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) write(out + i, (w0 * read(p0[i]) + w1 * read(p1[i])) * scale);
  } else if (at.count == 1) {
    const T* const p0 = image + at.pixel[0] * channels;
    const float w0 = at.weight[0];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) write(out + i, w0 * read(p0[i]) * scale);
  } else {
    for (int64_t i = 0; i < count; ++i) write(out + i, 0.0f * scale);  // nan for a mask that is nan or infinite, as in a product
  }
}

// All taps of one output position: (groups, taps, C / groups) at `out`.
template <class T>
void position_columns(const T* image, const float* offset, const float* mask, T* out, int64_t row, int64_t column, const Sizes& s) {
  const int64_t taps = s.kernel_h * s.kernel_w;
  const int64_t deform_width = s.channels / s.deform_groups, group_width = s.channels / s.groups;
  offset += row * s.offset_row + column * s.offset_column;
  mask += row * s.mask_row + column * s.mask_column;
  for (int64_t group = 0; group < s.deform_groups; ++group) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t slot = group * taps + tap;
      const float* const moved = offset + 2 * slot * s.offset_channel;
      const float y = float(row * s.stride_y - s.padding_y + tap / s.kernel_w * s.dilation_y) + moved[0];
      const float x = float(column * s.stride_x - s.padding_x + tap % s.kernel_w * s.dilation_x) + moved[s.offset_channel];
      const float scale = mask[slot * s.mask_channel];
      const Corners at = corners(y, x, s.height, s.width);
      // a deform group may span several groups of the convolution, or be a part of one
      for (int64_t channel = group * deform_width, end = channel + deform_width; channel < end;) {
        const int64_t home = channel / group_width, inner = channel % group_width;
        const int64_t count = std::min(end - channel, group_width - inner);
        sample(image + channel, s.channels, at, scale, out + (home * taps + tap) * group_width + inner, count);
        channel += count;
      }
    }
  }
}

template <class T>
void columns(const T* image, const float* offset, const float* mask, T* out, const int64_t* sizes) {
  Sizes s;
  std::memcpy(&s, sizes, sizeof s);
  const int64_t per_position = s.kernel_h * s.kernel_w * s.channels;
#pragma omp parallel for schedule(static) num_threads(int(s.threads))
  for (int64_t position = s.first; position < s.last; ++position) {
    T* const into = out + (position - s.first) * per_position;
    position_columns(image, offset, mask, into, position / s.out_width, position % s.out_width, s);
  }
}

}  // namespace

extern "C" {

#ifdef _OPENMP
extern const int occport_threaded = 1;
#else
extern const int occport_threaded = 0;
#endif

void occport_columns_float(const float* image, const float* offset, const float* mask, float* out, const int64_t* sizes) {
  columns(image, offset, mask, out, sizes);
}

void occport_columns_bfloat16(const Bf16* image, const float* offset, const float* mask, Bf16* out, const int64_t* sizes) {
  columns(image, offset, mask, out, sizes);
}
}
