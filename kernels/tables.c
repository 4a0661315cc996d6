/* From a calibration to the tables of one level: which camera sees which voxel, and where.
 *
 *     (p_u, p_v, depth) = rows of lidar2img, divided by (image_w, image_h, 1), times (x, y, z, 1) of the voxel's centre
 *     u = p_u / max(depth, 1e-5),  v = p_v / max(depth, 1e-5),  seen where depth > 1e-5 and 0 < u < 1 and 0 < v < 1
 *
 * A camera's hits get its slots in ascending voxel order; a voxel's hits get its rows in ascending camera order. A
 * hit without room, in either, is dropped and counted. The voxel's flat order is (z, h, w), x from w, y from h;
 * centre (i + 0.5) / n of the range.
 *
 * The products and sums below go through volatile variables: each is rounded by itself and in this order, also where
 * a compiler would like to fuse them or to keep more bits. Other bits would move a voxel on an image's border in or
 * out, and with it every slot behind it.
 */
#include "occport_kernels.h"

#include <float.h>

static const float min_depth = 1e-5f; /* metres; the original's epsilon */

static float product(float a, float b)
{
    volatile float rounded = a * b;
    return rounded;
}

static float sum(float a, float b)
{
    volatile float rounded = a + b;
    return rounded;
}

static float quotient(float a, float b)
{
    volatile float rounded = a / b;
    return rounded;
}

/* Centre i of n cells between low and high; in double, then rounded once. */
static float centre(size_t i, size_t n, double low, double high)
{
    volatile double part = ((double)i + 0.5) / (double)n;
    volatile double length = high - low;
    volatile double from_low = part * length;
    volatile double place = from_low + low;
    return (float)place;
}

/* The first three rows of one camera's matrix (4, 4), in units of the image: what is divided first stays small. */
static void scale_rows(const float *lidar2img, const occport_table_sizes *sizes, float scaled[3][4])
{
    const float size[3] = {(float)sizes->image_w, (float)sizes->image_h, 1.0f};
    for (int row = 0; row < 3; row++)
        for (int column = 0; column < 4; column++)
            scaled[row][column] = quotient(lidar2img[4 * row + column], size[row]);
}

/* Whether a camera sees the voxel, and where (u, v). NaN is never seen. */
static int project(float scaled[3][4], const occport_table_sizes *sizes, size_t voxel, float uv[2])
{
    const double *low = sizes->pc_range, *high = sizes->pc_range + 3;
    const size_t w = voxel % sizes->num_w, h = voxel / sizes->num_w % sizes->num_h;
    const size_t z = voxel / sizes->num_w / sizes->num_h;
    const float x = centre(w, sizes->num_w, low[0], high[0]), y = centre(h, sizes->num_h, low[1], high[1]);
    const float height = centre(z, sizes->num_z, low[2], high[2]);
    float seen[3];
    for (int row = 0; row < 3; row++) {
        const float z_part = sum(product(scaled[row][2], height), scaled[row][3]);
        seen[row] = sum(product(scaled[row][0], x), sum(product(scaled[row][1], y), z_part));
    }
    const float depth = seen[2];
    if (!(depth > min_depth))
        return 0;
    uv[0] = quotient(seen[0], depth);
    uv[1] = quotient(seen[1], depth);
    return uv[0] > 0.0f && uv[0] < 1.0f && uv[1] > 0.0f && uv[1] < 1.0f;
}

static int check(const float *lidar2img, const occport_table_sizes *sizes)
{
    if (!sizes || (sizes->num_cameras && !lidar2img))
        return OCCPORT_NULL_POINTER;
    const size_t volume[] = {sizes->num_z, sizes->num_h, sizes->num_w};
    const size_t matrices[] = {sizes->num_cameras, 16};
    size_t voxels = 0;
    if (sizes->image_h < 1 || sizes->image_w < 1)
        return OCCPORT_BAD_IMAGE;
    if (sizes->image_h > OCCPORT_MAX_SIDE || sizes->image_w > OCCPORT_MAX_SIDE)
        return OCCPORT_BAD_IMAGE;
    if (occport_count(volume, 3, &voxels) || voxels >= ((size_t)1 << 24))
        return OCCPORT_BAD_RANGE;
    for (int axis = 0; axis < 3; axis++) {
        const double low = sizes->pc_range[axis], high = sizes->pc_range[axis + 3];
        if (!(low >= -DBL_MAX && high <= DBL_MAX && low < high))
            return OCCPORT_BAD_RANGE;
    }
    return occport_count(matrices, 2, NULL);
}

int occport_table_needs(const float *lidar2img, const occport_table_sizes *sizes, int64_t *workspace, size_t *slots,
                        size_t *rows)
{
    const int status = check(lidar2img, sizes);
    if (status)
        return status;
    const size_t num_voxels = sizes->num_z * sizes->num_h * sizes->num_w;
    if (!slots || !rows || (num_voxels && !workspace))
        return OCCPORT_NULL_POINTER;

    int64_t most_slots = 1, most_rows = 1;
    for (size_t voxel = 0; voxel < num_voxels; voxel++)
        workspace[voxel] = 0;
    for (size_t camera = 0; camera < sizes->num_cameras; camera++) {
        float scaled[3][4], uv[2];
        int64_t hits = 0;
        scale_rows(lidar2img + 16 * camera, sizes, scaled);
        for (size_t voxel = 0; voxel < num_voxels; voxel++)
            if (project(scaled, sizes, voxel, uv)) {
                hits++;
                workspace[voxel]++;
                most_rows = workspace[voxel] > most_rows ? workspace[voxel] : most_rows;
            }
        most_slots = hits > most_slots ? hits : most_slots;
    }
    *slots = (size_t)most_slots;
    *rows = (size_t)most_rows;
    return OCCPORT_OK;
}

/* Empty tables, and no camera yet that sees a voxel. */
static void clear(const occport_table_sizes *sizes, size_t num_voxels, int64_t *slots, float *ref_uv, int64_t *back,
                  float *weight)
{
    const size_t num_slots = sizes->num_cameras * sizes->slots;
    for (size_t place = 0; place < num_slots; place++) {
        slots[place] = 0;
        ref_uv[2 * place] = ref_uv[2 * place + 1] = 0.0f;
    }
    for (size_t place = 0; place < sizes->rows * num_voxels; place++)
        back[place] = (int64_t)num_slots;
    for (size_t voxel = 0; voxel < num_voxels; voxel++)
        weight[voxel] = 0.0f;
}

/* The voxel's first free row, or `rows`: they are filled from the first on. */
static size_t free_row(const occport_table_sizes *sizes, const int64_t *back, size_t num_voxels, size_t voxel)
{
    const int64_t none = (int64_t)(sizes->num_cameras * sizes->slots);
    size_t row = 0;
    while (row < sizes->rows && back[row * num_voxels + voxel] != none)
        row++;
    return row;
}

static int check_outputs(const occport_table_sizes *sizes, size_t num_voxels, const int64_t *slots, const float *ref_uv,
                         const int64_t *back, const float *weight, const int64_t *dropped)
{
    const size_t all_slots[] = {sizes->num_cameras, sizes->slots, 2}, all_rows[] = {sizes->rows, num_voxels};
    if (sizes->slots < 1 || sizes->rows < 1)
        return OCCPORT_BAD_BUDGET;
    if (occport_count(all_slots, 3, NULL) || occport_count(all_rows, 2, NULL))
        return OCCPORT_TOO_LARGE;
    if (!dropped || (sizes->num_cameras && (!slots || !ref_uv)) || (num_voxels && (!back || !weight)))
        return OCCPORT_NULL_POINTER;
    return OCCPORT_OK;
}

int occport_table(const float *lidar2img, const occport_table_sizes *sizes, int64_t *slots, float *ref_uv,
                  int64_t *back, float *weight, int64_t *dropped)
{
    int status = check(lidar2img, sizes);
    if (status)
        return status;
    const size_t num_voxels = sizes->num_z * sizes->num_h * sizes->num_w;
    status = check_outputs(sizes, num_voxels, slots, ref_uv, back, weight, dropped);
    if (status)
        return status;

    clear(sizes, num_voxels, slots, ref_uv, back, weight);
    *dropped = 0;
    for (size_t camera = 0; camera < sizes->num_cameras; camera++) {
        float scaled[3][4], uv[2];
        size_t filled = 0;
        scale_rows(lidar2img + 16 * camera, sizes, scaled);
        for (size_t voxel = 0; voxel < num_voxels; voxel++) {
            if (!project(scaled, sizes, voxel, uv))
                continue;
            weight[voxel] += 1.0f; /* a dropped hit counts: the mean is over the cameras that really see the voxel */
            const size_t row = filled < sizes->slots ? free_row(sizes, back, num_voxels, voxel) : sizes->rows;
            if (row == sizes->rows)
                ++*dropped;
            else
                back[row * num_voxels + voxel] = (int64_t)(camera * sizes->slots + filled);
            if (filled < sizes->slots) { /* a hit without a row keeps its slot, as in the model */
                const size_t place = camera * sizes->slots + filled++;
                slots[place] = (int64_t)voxel;
                ref_uv[2 * place] = uv[0];
                ref_uv[2 * place + 1] = uv[1];
            }
        }
    }
    for (size_t voxel = 0; voxel < num_voxels; voxel++)
        weight[voxel] = 1.0f / (weight[voxel] > 1.0f ? weight[voxel] : 1.0f);
    return OCCPORT_OK;
}
