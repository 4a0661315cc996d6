/* Reference kernels of an exported SurroundOcc, in C99 with nothing but libc and libm.
 *
 * They say what an accelerator's own kernel has to compute, and serve a host program that makes the inputs of an
 * exported file. Written to be read and held against, not to be fast.
 *
 * Every array is dense and row-major, the last dimension fastest. Every function checks its sizes before it touches
 * an array, and returns OCCPORT_OK (0) or another code of `enum occport_status`; after an error no output is written.
 * None allocates, none has state: all may be called from several threads at once, on different outputs. Where a size
 * is zero there is nothing to read or write, and the pointer may be NULL. Outputs must not overlap inputs.
 *
 * Locations and offsets may be anything, infinite and NaN included: a sample that is not inside the map contributes
 * nothing, and nothing outside of an array is ever read.
 */
#ifndef OCCPORT_KERNELS_H
#define OCCPORT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __FAST_MATH__
#error "do not compile these kernels with -ffast-math: they compare with NaN and rely on the order of additions"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum occport_status {
    OCCPORT_OK = 0,
    OCCPORT_NULL_POINTER,
    OCCPORT_TOO_LARGE,
    OCCPORT_BAD_LEVEL,
    OCCPORT_BAD_GROUPS,
    OCCPORT_BAD_STEP,
    OCCPORT_NO_OUTPUT,
    OCCPORT_BAD_BUDGET,
    OCCPORT_BAD_RANGE,
    OCCPORT_BAD_IMAGE,
    OCCPORT_BAD_STD
};

/* One line about a status; never NULL, also for numbers that are none. */
const char *occport_strerror(int status);

/* ---- sizes, sampling: what the kernels share --------------------------------------------------------------------- */

/* Height and width of a map, and every stride, padding and dilation, are at most this: whole numbers that a float
 * holds. */
#define OCCPORT_MAX_SIDE ((size_t)1 << 24)

/* The product of the sizes into *count; OCCPORT_TOO_LARGE where that many elements of 8 bytes are more than an array
 * can have. A size of zero makes the product zero, whatever the others are. `count` may be NULL. */
int occport_count(const size_t *sizes, size_t num_sizes, size_t *count);

/* One of the at most four pixels around a sample. */
typedef struct {
    size_t place; /* row * width + column */
    float share;  /* its part in the bilinear value, 0..1 */
} occport_corner;

/* The pixels around (y, x) that lie inside the map, and how many they are. In pixels; pixel centres are whole
 * numbers. None unless -1 < y < height and -1 < x < width, which NaN is not. Corners outside the map count as zero:
 * they are left out. */
size_t occport_corners(size_t height, size_t width, float y, float x, occport_corner corners[4]);

/* ---- multi-scale deformable attention (msda.c) ------------------------------------------------------------------- */

typedef struct {
    size_t A; /* images: cameras x batch */
    size_t S; /* rows of value, at least the sum of h*w over the levels */
    size_t M; /* heads */
    size_t D; /* width of a head */
    size_t Q; /* queries */
    size_t L; /* levels, at least 1 */
    size_t P; /* points of a head in each level, at least 1 */
} occport_msda_sizes;

/* The narrow form, as mmcv's kernel has it.
 *   value                (A, S, M, D)
 *   spatial_shapes       (L, 2) h, w of each level. int64; a dialect with int32 converts these few numbers first
 *   level_start_index    (L) row of value where each level starts
 *   sampling_locations   (A, Q, M, L, P, 2) x, y in units of the level's map: u is pixel u*w - 1/2
 *   attention_weights    (A, Q, M, L, P) already softmaxed over L*P
 *   out                  (A, Q, M*D)
 * Errors: NULL_POINTER, TOO_LARGE, BAD_LEVEL. */
int occport_msda(const float *value, const int64_t *spatial_shapes, const int64_t *level_start_index,
                 const float *sampling_locations, const float *attention_weights, const occport_msda_sizes *sizes,
                 float *out);

/* The wide form, the one of the canonical graph: location = reference + offset / (w, h), weights = softmax of the
 * logits over L*P. A logit of -infinity has no weight; NaN and +infinity among the logits make the result of their
 * query and head NaN, where it sees anything.
 *   reference_points     (A, Q, L, 2) x, y in units of the level's map
 *   sampling_offsets     (A, Q, M, L, P, 2) x, y in pixels of the level
 *   attention_logits     (A, Q, M, L, P) before the softmax
 * The others, and the errors, as in the narrow form. */
int occport_msda_wide(const float *value, const int64_t *spatial_shapes, const int64_t *level_start_index,
                      const float *reference_points, const float *sampling_offsets, const float *attention_logits,
                      const occport_msda_sizes *sizes, float *out);

/* ---- modulated deformable convolution, DCNv2 (deform_conv.c) ----------------------------------------------------- */

typedef struct {
    size_t A;             /* images */
    size_t C, H, W;       /* input channels and size, at least 1 */
    size_t O, kh, kw;     /* output channels; kernel size, at least 1 */
    size_t stride[2];     /* y, x; at least 1 */
    size_t padding[2];    /* y, x; on both sides */
    size_t dilation[2];   /* y, x; at least 1 */
    size_t groups;        /* of the weight; divides C and O */
    size_t deform_groups; /* G, each with offsets and masks of its own; divides C */
} occport_dcn_sizes;

/* (Ho, Wo) = floor((size + 2*padding - dilation*(k - 1) - 1) / stride) + 1, into *height and *width.
 * Errors: NULL_POINTER, TOO_LARGE, BAD_GROUPS, BAD_STEP; NO_OUTPUT where the kernel is larger than the padded input. */
int occport_dcn_output(const occport_dcn_sizes *sizes, size_t *height, size_t *width);

/* How many floats of workspace `occport_dcn` wants, into *count: C * kh * kw * 16. Errors: as `occport_dcn_output`. */
int occport_dcn_workspace(const occport_dcn_sizes *sizes, size_t *count);

/* T = kh*kw taps.
 *   input      (A, C, H, W)
 *   offset     (A, G*2*T, Ho, Wo) in input pixels; channel 2k of a group is dy, 2k + 1 is dx of tap k
 *   mask       (A, G*T, Ho, Wo) already sigmoided
 *   weight     (O, C/groups, kh, kw)
 *   bias       (O), or NULL for none
 *   workspace  floats, as many as `occport_dcn_workspace` says; contents do not matter
 *   out        (A, O, Ho, Wo)
 * Errors: as `occport_dcn_output`. */
int occport_dcn(const float *input, const float *offset, const float *mask, const float *weight, const float *bias,
                const occport_dcn_sizes *sizes, float *workspace, float *out);

/* ---- calibration to tables (tables.c) ---------------------------------------------------------------------------- */

typedef struct {
    size_t num_cameras;         /* N */
    size_t image_h, image_w;    /* the padded image, pixels */
    size_t num_z, num_h, num_w; /* the level's volume; V = num_z * num_h * num_w voxels, less than 2^24 */
    double pc_range[6];         /* x, y, z of the lowest, then of the highest corner; lidar metres */
    size_t slots;               /* K, voxels a camera may see: budget of the exported file */
    size_t rows;                /* R, cameras that may see a voxel: the other budget */
} occport_table_sizes;

/* The smallest budgets that drop nothing, at least 1 each. `slots` and `rows` of the sizes are not read.
 *   lidar2img  (N, 4, 4) lidar metres to pixels of the padded image; float64 matrices are rounded to float32 first
 *   workspace  (V) int64; contents do not matter
 * Errors: NULL_POINTER, TOO_LARGE, BAD_IMAGE, BAD_RANGE. */
int occport_table_needs(const float *lidar2img, const occport_table_sizes *sizes, int64_t *workspace, size_t *slots,
                        size_t *rows);

/* The tables of one level and one sample, equal to the model's to the last bit.
 *   slots      (N, K) int64, voxel in each slot, ascending; 0 where empty. Voxel = (z * num_h + h) * num_w + w
 *   ref_uv     (N, K, 2) x, y in units of the image, 0..1; 0 where empty
 *   back       (R, V) int64, slot n*K + k of each camera that sees the voxel; N*K where none
 *   weight     (V) 1 / max(number of cameras that really see the voxel, 1)
 *   dropped    one int64: hits that found no room. Anything but 0 means that the budget is too small for this rig
 * Errors: those of `occport_table_needs`, and BAD_BUDGET. */
int occport_table(const float *lidar2img, const occport_table_sizes *sizes, int64_t *slots, float *ref_uv,
                  int64_t *back, float *weight, int64_t *dropped);

/* ---- images (preprocess.c) --------------------------------------------------------------------------------------- */

typedef struct {
    size_t height, width;  /* of the image, pixels; at least 1 */
    size_t row_bytes;      /* from one row to the next, at least 3 * width */
    size_t divisor;        /* the padded size is a multiple of it; 32 in the official config, 1 for none */
    int swap;              /* 1: the network's channels are the image's in reverse order; 0: in the same order */
    float mean[3], std[3]; /* grey levels, in the network's channel order */
} occport_image;

/* Height and width rounded up to multiples of the divisor. Errors: NULL_POINTER, BAD_IMAGE. */
int occport_padded(const occport_image *image, size_t *height, size_t *width);

/* (pixel - mean) / std, and then zeros at the bottom and on the right.
 *   pixels     (height, width, 3) uint8, interleaved; of the last row only its 3 * width bytes are read
 *   out        (3, Hp, Wp), the size that `occport_padded` gives
 * Errors: NULL_POINTER, TOO_LARGE, BAD_IMAGE, BAD_STD. */
int occport_preprocess(const uint8_t *pixels, const occport_image *image, float *out);

#ifdef __cplusplus
}
#endif

#endif
