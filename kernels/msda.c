/* Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021).
 *
 *     out[a, q, m] = sum over levels l and points p of  weight[a, q, m, l, p] * value_l[a, m] at (x, y)
 *     x = u * w_l - 1/2,  y = v * h_l - 1/2,  bilinear, every corner outside the map counting as zero
 *
 * (u, v) are the sampling locations of the narrow form; the wide form makes them, and the weights, by itself.
 */
#include "occport_kernels.h"

#include <math.h>

static int check_levels(const occport_msda_sizes *sizes, const int64_t *spatial_shapes,
                        const int64_t *level_start_index)
{
    for (size_t level = 0; level < sizes->L; level++) {
        const int64_t h = spatial_shapes[2 * level], w = spatial_shapes[2 * level + 1];
        const int64_t start = level_start_index[level];
        if (h < 1 || w < 1 || start < 0 || (uint64_t)start > sizes->S)
            return OCCPORT_BAD_LEVEL;
        if ((uint64_t)h > OCCPORT_MAX_SIDE || (uint64_t)w > OCCPORT_MAX_SIDE)
            return OCCPORT_TOO_LARGE;
        if ((uint64_t)h * (uint64_t)w > sizes->S - (uint64_t)start)
            return OCCPORT_BAD_LEVEL;
    }
    return OCCPORT_OK;
}

/* All checks but those of the pointers to floats. The number of outputs comes back beside the status. */
static int check(const occport_msda_sizes *sizes, const int64_t *spatial_shapes, const int64_t *level_start_index,
                 size_t *num_out)
{
    if (!sizes)
        return OCCPORT_NULL_POINTER;
    if (sizes->L == 0 || sizes->P == 0)
        return OCCPORT_BAD_LEVEL;
    if (!spatial_shapes || !level_start_index)
        return OCCPORT_NULL_POINTER;
    const size_t value[] = {sizes->A, sizes->S, sizes->M, sizes->D};
    const size_t locations[] = {sizes->A, sizes->Q, sizes->M, sizes->L, sizes->P, 2};
    const size_t out[] = {sizes->A, sizes->Q, sizes->M, sizes->D};
    int status = occport_count(value, 4, NULL);
    if (!status)
        status = occport_count(locations, 6, NULL);
    if (!status)
        status = occport_count(out, 4, num_out);
    return status ? status : check_levels(sizes, spatial_shapes, level_start_index);
}

/* What a sample needs to know of the level that it lies in. */
typedef struct {
    const float *map; /* (h*w, M, D) from the head in question on */
    size_t h, w;
} level_map;

static level_map map_of(const float *value, const int64_t *spatial_shapes, const int64_t *level_start_index,
                        const occport_msda_sizes *sizes, size_t image, size_t head, size_t level)
{
    const size_t row = image * sizes->S + (size_t)level_start_index[level];
    const level_map found = {value + (row * sizes->M + head) * sizes->D, (size_t)spatial_shapes[2 * level],
                             (size_t)spatial_shapes[2 * level + 1]};
    return found;
}

/* Adds weight * the map's value at location (u, v) to out (D). */
static void add_sample(const level_map *level, const occport_msda_sizes *sizes, float u, float v, float weight,
                       float *out)
{
    occport_corner corners[4];
    const float y = v * (float)level->h - 0.5f, x = u * (float)level->w - 0.5f;
    const size_t num = occport_corners(level->h, level->w, y, x, corners);
    for (size_t i = 0; i < num; i++) {
        const float *pixel = level->map + corners[i].place * sizes->M * sizes->D;
        const float share = weight * corners[i].share;
        for (size_t d = 0; d < sizes->D; d++)
            out[d] += share * pixel[d];
    }
}

int occport_msda(const float *value, const int64_t *spatial_shapes, const int64_t *level_start_index,
                 const float *sampling_locations, const float *attention_weights, const occport_msda_sizes *sizes,
                 float *out)
{
    size_t num_out;
    const int status = check(sizes, spatial_shapes, level_start_index, &num_out);
    if (status || num_out == 0)
        return status;
    if (!value || !out || !sampling_locations || !attention_weights)
        return OCCPORT_NULL_POINTER;

    for (size_t place = 0; place < sizes->A * sizes->Q * sizes->M; place++) { /* (a, q, m) */
        const size_t image = place / (sizes->Q * sizes->M), head = place % sizes->M;
        float *sum = out + place * sizes->D;
        for (size_t d = 0; d < sizes->D; d++)
            sum[d] = 0.0f;
        for (size_t level = 0; level < sizes->L; level++) {
            const level_map map = map_of(value, spatial_shapes, level_start_index, sizes, image, head, level);
            for (size_t p = 0; p < sizes->P; p++) {
                const size_t point = (place * sizes->L + level) * sizes->P + p;
                const float *location = sampling_locations + 2 * point;
                add_sample(&map, sizes, location[0], location[1], attention_weights[point], sum);
            }
        }
    }
    return OCCPORT_OK;
}

/* Softmax of `num` logits is expf(logit - *largest) / *total: without the subtraction expf overflows from 89 on. */
static void softmax_of(const float *logits, size_t num, float *largest, float *total)
{
    *largest = -INFINITY;
    for (size_t i = 0; i < num; i++)
        if (logits[i] > *largest)
            *largest = logits[i];
    *total = 0.0f;
    for (size_t i = 0; i < num; i++)
        *total += expf(logits[i] - *largest);
}

int occport_msda_wide(const float *value, const int64_t *spatial_shapes, const int64_t *level_start_index,
                      const float *reference_points, const float *sampling_offsets, const float *attention_logits,
                      const occport_msda_sizes *sizes, float *out)
{
    size_t num_out;
    const int status = check(sizes, spatial_shapes, level_start_index, &num_out);
    if (status || num_out == 0)
        return status;
    if (!value || !out || !reference_points || !sampling_offsets || !attention_logits)
        return OCCPORT_NULL_POINTER;

    for (size_t place = 0; place < sizes->A * sizes->Q * sizes->M; place++) { /* (a, q, m) */
        const size_t image = place / (sizes->Q * sizes->M), head = place % sizes->M;
        const size_t num_points = sizes->L * sizes->P;
        const float *logits = attention_logits + place * num_points;
        const float *offsets = sampling_offsets + 2 * place * num_points;
        const float *references = reference_points + 2 * (place / sizes->M) * sizes->L; /* (L, 2) of (a, q) */
        float largest, total;
        softmax_of(logits, num_points, &largest, &total);
        float *sum = out + place * sizes->D;
        for (size_t d = 0; d < sizes->D; d++)
            sum[d] = 0.0f;
        for (size_t level = 0; level < sizes->L; level++) {
            const level_map map = map_of(value, spatial_shapes, level_start_index, sizes, image, head, level);
            for (size_t point = level * sizes->P; point < (level + 1) * sizes->P; point++) {
                const float u = references[2 * level] + offsets[2 * point] / (float)map.w;
                const float v = references[2 * level + 1] + offsets[2 * point + 1] / (float)map.h;
                add_sample(&map, sizes, u, v, expf(logits[point] - largest) / total, sum);
            }
        }
    }
    return OCCPORT_OK;
}
