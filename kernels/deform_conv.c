/* Modulated deformable convolution, DCNv2 (Zhu et al., "Deformable ConvNets v2", CVPR 2019).
 *
 * Tap k = kw*i + j of the kernel reads, for output pixel (ho, wo), the input at
 *
 *     y = ho*stride_y - padding_y + i*dilation_y + offset[2k]
 *     x = wo*stride_x - padding_x + j*dilation_x + offset[2k + 1]
 *
 * bilinearly, every corner outside the map counting as zero, times mask[k]. Over channels and taps follows the ordinary
 * weighted sum of a convolution. A row of output pixels is done in tiles: what a tile's taps see is gathered once, into
 * the workspace, and serves all output channels.
 */
#include "occport_kernels.h"

#define TILE 16

/* One tile of output pixels, and the sizes that follow from the caller's. */
typedef struct {
    const occport_dcn_sizes *sizes;
    size_t Ho, Wo, T;
    size_t ho, wo, num; /* output pixels (ho, wo) to (ho, wo + num - 1) */
} dcn_tile;

static int check_sides(const occport_dcn_sizes *sizes)
{
    const size_t *stride = sizes->stride, *dilation = sizes->dilation;
    const size_t least_one[] = {sizes->H,  sizes->W,  sizes->kh,   sizes->kw,
                                stride[0], stride[1], dilation[0], dilation[1]};
    for (int i = 0; i < 8; i++)
        if (least_one[i] < 1 || least_one[i] > OCCPORT_MAX_SIDE)
            return least_one[i] ? OCCPORT_TOO_LARGE : OCCPORT_BAD_STEP;
    const int large = sizes->padding[0] > OCCPORT_MAX_SIDE || sizes->padding[1] > OCCPORT_MAX_SIDE;
    return large ? OCCPORT_TOO_LARGE : OCCPORT_OK;
}

static int check_groups(const occport_dcn_sizes *sizes)
{
    if (sizes->C < 1 || sizes->groups < 1 || sizes->deform_groups < 1)
        return OCCPORT_BAD_GROUPS;
    if (sizes->C % sizes->groups || sizes->O % sizes->groups || sizes->C % sizes->deform_groups)
        return OCCPORT_BAD_GROUPS;
    return OCCPORT_OK;
}

static int check_counts(const occport_dcn_sizes *sizes, size_t Ho, size_t Wo)
{
    const size_t kh = sizes->kh, kw = sizes->kw;
    const size_t input[] = {sizes->A, sizes->C, sizes->H, sizes->W};
    const size_t offset[] = {sizes->A, sizes->deform_groups, 2, kh, kw, Ho, Wo};
    const size_t weight[] = {sizes->O, sizes->C / sizes->groups, kh, kw};
    const size_t columns[] = {sizes->C, kh, kw, TILE};
    const size_t out[] = {sizes->A, sizes->O, Ho, Wo};
    int status = occport_count(input, 4, NULL);
    if (!status)
        status = occport_count(offset, 7, NULL);
    if (!status)
        status = occport_count(weight, 4, NULL);
    if (!status)
        status = occport_count(columns, 4, NULL);
    return status ? status : occport_count(out, 4, NULL);
}

int occport_dcn_output(const occport_dcn_sizes *sizes, size_t *height, size_t *width)
{
    if (!sizes || !height || !width)
        return OCCPORT_NULL_POINTER;
    int status = check_sides(sizes);
    if (!status)
        status = check_groups(sizes);
    if (status)
        return status;
    const size_t sides[2] = {sizes->H, sizes->W}, taps[2] = {sizes->kh, sizes->kw};
    size_t found[2];
    for (int i = 0; i < 2; i++) {
        const uint64_t padded = (uint64_t)sides[i] + 2 * (uint64_t)sizes->padding[i];
        const uint64_t reach = (uint64_t)sizes->dilation[i] * (taps[i] - 1) + 1;
        if (reach > padded)
            return OCCPORT_NO_OUTPUT;
        found[i] = (size_t)((padded - reach) / sizes->stride[i] + 1);
    }
    status = check_counts(sizes, found[0], found[1]);
    if (status)
        return status;
    *height = found[0];
    *width = found[1];
    return OCCPORT_OK;
}

int occport_dcn_workspace(const occport_dcn_sizes *sizes, size_t *count)
{
    size_t height, width;
    if (!count)
        return OCCPORT_NULL_POINTER;
    const int status = occport_dcn_output(sizes, &height, &width);
    if (!status)
        *count = sizes->C * sizes->kh * sizes->kw * TILE;
    return status;
}

/* Where tap (i, j) looks for output pixel (ho, wo) before its offset, in input pixels along one axis. */
static float before_offset(const occport_dcn_sizes *sizes, int axis, size_t output, size_t tap)
{
    const int64_t start = (int64_t)output * (int64_t)sizes->stride[axis] - (int64_t)sizes->padding[axis];
    return (float)(start + (int64_t)tap * (int64_t)sizes->dilation[axis]);
}

/* What the taps of one image see from a tile: columns (C, T, TILE), of which the first `num` of each TILE count.
 * image (C, H, W), offset (G*2*T, Ho, Wo), mask (G*T, Ho, Wo). */
static void gather(const dcn_tile *tile, const float *image, const float *offset, const float *mask, float *columns)
{
    const occport_dcn_sizes *sizes = tile->sizes;
    const size_t per_group = sizes->C / sizes->deform_groups, plane = sizes->H * sizes->W;
    const size_t outputs = tile->Ho * tile->Wo;
    for (size_t k = 0; k < sizes->deform_groups * tile->T; k++) {
        const size_t group = k / tile->T, tap = k % tile->T;
        for (size_t t = 0; t < tile->num; t++) {
            const size_t pixel = tile->ho * tile->Wo + tile->wo + t;
            const float dy = offset[2 * k * outputs + pixel], dx = offset[(2 * k + 1) * outputs + pixel];
            const float y = before_offset(sizes, 0, tile->ho, tap / sizes->kw) + dy;
            const float x = before_offset(sizes, 1, tile->wo + t, tap % sizes->kw) + dx;
            occport_corner corners[4];
            const size_t num = occport_corners(sizes->H, sizes->W, y, x, corners);
            for (size_t c = group * per_group; c < (group + 1) * per_group; c++) {
                float seen = 0.0f;
                for (size_t i = 0; i < num; i++)
                    seen += corners[i].share * image[c * plane + corners[i].place];
                columns[(c * tile->T + tap) * TILE + t] = num ? seen * mask[k * outputs + pixel] : 0.0f;
            }
        }
    }
}

/* The weighted sums of a tile: out (O, Ho, Wo) of one image. Sums are in double: there are thousands of terms. */
static void multiply(const dcn_tile *tile, const float *weight, const float *bias, const float *columns, float *out)
{
    const occport_dcn_sizes *sizes = tile->sizes;
    const size_t terms = sizes->C / sizes->groups * tile->T, out_per_group = sizes->O / sizes->groups;
    for (size_t o = 0; o < sizes->O; o++) {
        const float *column = columns + o / out_per_group * terms * TILE;
        double sum[TILE];
        for (size_t t = 0; t < tile->num; t++)
            sum[t] = bias ? (double)bias[o] : 0.0;
        for (size_t i = 0; i < terms; i++)
            for (size_t t = 0; t < tile->num; t++)
                sum[t] += (double)weight[o * terms + i] * (double)column[i * TILE + t];
        for (size_t t = 0; t < tile->num; t++)
            out[(o * tile->Ho + tile->ho) * tile->Wo + tile->wo + t] = (float)sum[t];
    }
}

int occport_dcn(const float *input, const float *offset, const float *mask, const float *weight, const float *bias,
                const occport_dcn_sizes *sizes, float *workspace, float *out)
{
    dcn_tile tile = {sizes, 0, 0, 0, 0, 0, 0};
    const int status = occport_dcn_output(sizes, &tile.Ho, &tile.Wo);
    if (status || sizes->A == 0 || sizes->O == 0)
        return status;
    if (!input || !offset || !mask || !weight || !workspace || !out)
        return OCCPORT_NULL_POINTER;

    tile.T = sizes->kh * sizes->kw;
    const size_t outputs = tile.Ho * tile.Wo, fields = sizes->deform_groups * tile.T;
    for (size_t a = 0; a < sizes->A; a++) {
        const float *image = input + a * sizes->C * sizes->H * sizes->W;
        for (tile.ho = 0; tile.ho < tile.Ho; tile.ho++)
            for (tile.wo = 0; tile.wo < tile.Wo; tile.wo += TILE) {
                tile.num = tile.Wo - tile.wo < TILE ? tile.Wo - tile.wo : TILE;
                gather(&tile, image, offset + 2 * a * fields * outputs, mask + a * fields * outputs, workspace);
                multiply(&tile, weight, bias, workspace, out + a * sizes->O * outputs);
            }
    }
    return OCCPORT_OK;
}
