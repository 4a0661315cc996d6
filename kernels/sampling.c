/* What the kernels share: texts, sizes that cannot overflow, and the one place that decides which pixels are read. */
#include "occport_kernels.h"

#include <math.h>

const char *occport_strerror(int status)
{
    switch (status) {
    case OCCPORT_OK:
        return "no error";
    case OCCPORT_NULL_POINTER:
        return "an argument is NULL where there is something to read or write; give the array";
    case OCCPORT_TOO_LARGE:
        return "sizes: expected arrays that fit into memory and at most 2^24 a side; check the order of the sizes";
    case OCCPORT_BAD_LEVEL:
        return "levels: expected at least one level and one point, h, w >= 1 and the h*w rows of each level inside the "
               "S rows of value; check spatial_shapes (h, w) and level_start_index";
    case OCCPORT_BAD_GROUPS:
        return "groups: expected C >= 1, groups >= 1 that divide C and O, and deform_groups >= 1 that divide C";
    case OCCPORT_BAD_STEP:
        return "convolution: expected H, W, kh, kw, stride and dilation of at least 1";
    case OCCPORT_NO_OUTPUT:
        return "kernel: expected one that fits into the padded input, got no output pixel; check padding and dilation";
    case OCCPORT_BAD_BUDGET:
        return "budget: expected slots and rows of at least 1; take those of the export's manifest";
    case OCCPORT_BAD_RANGE:
        return "volume: expected less than 2^24 voxels and a finite pc_range whose lows are below its highs";
    case OCCPORT_BAD_IMAGE:
        return "image: expected height, width and divisor from 1 to 2^24 and rows of at least 3 * width bytes";
    case OCCPORT_BAD_STD:
        return "std: expected three positive numbers";
    default:
        return "no status of these kernels";
    }
}

int occport_count(const size_t *sizes, size_t num_sizes, size_t *count)
{
    const size_t most = (size_t)PTRDIFF_MAX / 8;
    size_t product = 1;
    for (size_t i = 0; i < num_sizes; i++)
        if (sizes[i] == 0)
            product = 0;
    for (size_t i = 0; i < num_sizes && product; i++) {
        if (sizes[i] > most / product)
            return OCCPORT_TOO_LARGE;
        product *= sizes[i];
    }
    if (count)
        *count = product;
    return OCCPORT_OK;
}

size_t occport_corners(size_t height, size_t width, float y, float x, occport_corner corners[4])
{
    /* asked this way round NaN fails; what passes is small enough for the conversion to an integer */
    if (!(y > -1.0f && y < (float)height && x > -1.0f && x < (float)width))
        return 0;
    const float top = floorf(y), left = floorf(x);
    const float down[2] = {1.0f - (y - top), y - top};
    const float across[2] = {1.0f - (x - left), x - left};
    size_t num = 0;
    for (int i = 0; i < 2; i++) {
        const int64_t row = (int64_t)top + i;
        if (row < 0 || (uint64_t)row >= height)
            continue;
        for (int j = 0; j < 2; j++) {
            const int64_t column = (int64_t)left + j;
            if (column < 0 || (uint64_t)column >= width)
                continue;
            corners[num].place = (size_t)row * width + (size_t)column;
            corners[num].share = down[i] * across[j];
            num++;
        }
    }
    return num;
}
