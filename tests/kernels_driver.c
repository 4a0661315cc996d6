/* Calls every kernel with random sizes and wild numbers, in arrays that are not a byte longer than they have to be.
 * Built with the address and undefined-behaviour sanitizers it ends at the first read outside; by itself it looks
 * whether the results are what results can be. The argument is how many rounds. */
#include "occport_kernels.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t state = 1;

static uint32_t number(void) /* xorshift (Marsaglia, 2003) */
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static size_t from_to(size_t low, size_t high)
{
    return low + number() % (high - low + 1);
}

static float tame(void)
{
    return (float)(number() % 2001) / 1000.0f - 1.0f;
}

/* -1 to 8 in quarters, or something that no map has. */
static float wild(void)
{
    static const float odd[] = {(float)NAN, (float)INFINITY, -(float)INFINITY, 1e30f,   -1e30f,   FLT_MAX,
                                -FLT_MAX,   FLT_MIN,         -FLT_MIN,         1e9f,    -1e9f,    4294967296.0f,
                                -1.0f,      0.0f,            -0.0f,            0.5f,    1.0f,     -0.99999994f};
    if (number() % 3 == 0)
        return odd[number() % (sizeof odd / sizeof odd[0])];
    return (float)(number() % 37) / 4.0f - 1.0f;
}

static void *room(size_t count, size_t item)
{
    void *found = malloc(count * item);
    if (!found && count) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return found;
}

static float *filled(size_t count, float (*make)(void))
{
    float *array = room(count, sizeof *array);
    for (size_t i = 0; i < count; i++)
        array[i] = make();
    return array;
}

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static void expect_finite(const float *array, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        expect(isfinite(array[i]), what);
}

static void attend(void)
{
    int64_t *shapes, *starts;
    occport_msda_sizes sizes = {.S = from_to(0, 1)};
    sizes.A = from_to(0, 2);
    sizes.M = from_to(1, 3);
    sizes.D = from_to(1, 3);
    sizes.Q = from_to(0, 4);
    sizes.L = from_to(1, 3);
    sizes.P = from_to(1, 3);
    shapes = room(2 * sizes.L, sizeof *shapes);
    starts = room(sizes.L, sizeof *starts);
    for (size_t level = 0; level < sizes.L; level++) {
        starts[level] = (int64_t)sizes.S;
        shapes[2 * level] = (int64_t)from_to(1, 7);
        shapes[2 * level + 1] = (int64_t)from_to(1, 7);
        sizes.S += (size_t)(shapes[2 * level] * shapes[2 * level + 1]);
    }
    const size_t outputs = sizes.A * sizes.Q * sizes.M * sizes.D;
    const size_t points = sizes.A * sizes.Q * sizes.M * sizes.L * sizes.P;
    float *value = filled(sizes.A * sizes.S * sizes.M * sizes.D, tame), *weights = filled(points, tame);
    float *locations = filled(2 * points, wild), *references = filled(2 * sizes.A * sizes.Q * sizes.L, wild);
    float *out = room(outputs, sizeof *out);
    int status = occport_msda(value, shapes, starts, locations, weights, &sizes, out);
    expect(status == OCCPORT_OK, "msda: status");
    expect_finite(out, outputs, "msda: not finite");
    status = occport_msda_wide(value, shapes, starts, references, locations, weights, &sizes, out);
    expect(status == OCCPORT_OK, "msda_wide: status");
    expect_finite(out, outputs, "msda_wide: not finite");
    starts[sizes.L - 1]++;
    status = occport_msda(value, shapes, starts, locations, weights, &sizes, out);
    expect(status == OCCPORT_BAD_LEVEL, "msda: a level that ends behind the value");
    free(shapes), free(starts), free(value), free(weights), free(locations), free(references), free(out);
}

static void convolve(void)
{
    const size_t groups = from_to(1, 2), deform_groups = from_to(1, 3);
    occport_dcn_sizes sizes = {.groups = groups, .deform_groups = deform_groups};
    sizes.A = from_to(0, 2);
    sizes.C = groups * deform_groups * from_to(1, 2);
    sizes.H = from_to(1, 7);
    sizes.W = from_to(1, 40);
    sizes.O = groups * from_to(0, 2);
    sizes.kh = from_to(1, 3);
    sizes.kw = from_to(1, 3);
    for (int i = 0; i < 2; i++) {
        sizes.stride[i] = from_to(1, 3);
        sizes.padding[i] = from_to(0, 2);
        sizes.dilation[i] = from_to(1, 2);
    }
    size_t Ho, Wo, count;
    int status = occport_dcn_output(&sizes, &Ho, &Wo);
    if (status) {
        expect(status == OCCPORT_NO_OUTPUT, "dcn: status of the sizes");
        return;
    }
    expect(occport_dcn_workspace(&sizes, &count) == OCCPORT_OK, "dcn: workspace");
    const size_t taps = sizes.kh * sizes.kw, outputs = sizes.A * sizes.O * Ho * Wo;
    const size_t fields = sizes.A * deform_groups * taps * Ho * Wo;
    float *input = filled(sizes.A * sizes.C * sizes.H * sizes.W, tame);
    float *weight = filled(sizes.O * sizes.C / groups * taps, tame);
    float *offset = filled(2 * fields, wild), *mask = filled(fields, tame), *bias = filled(sizes.O, tame);
    float *workspace = filled(count, wild), *out = room(outputs, sizeof *out);
    const float *given = number() % 2 ? bias : NULL;
    status = occport_dcn(input, offset, mask, weight, given, &sizes, workspace, out);
    expect(status == OCCPORT_OK, "dcn: status");
    expect_finite(out, outputs, "dcn: not finite");
    free(input), free(weight), free(offset), free(mask), free(bias), free(workspace), free(out);
}

static void tabulate(void)
{
    occport_table_sizes sizes = {.image_h = 32, .image_w = 64, .pc_range = {-8, -6, -2, 8, 6, 2}};
    sizes.num_cameras = from_to(0, 4);
    sizes.num_z = from_to(0, 3);
    sizes.num_h = from_to(1, 5);
    sizes.num_w = from_to(1, 7);
    const size_t N = sizes.num_cameras, V = sizes.num_z * sizes.num_h * sizes.num_w;
    float *lidar2img = filled(16 * N, number() % 2 ? wild : tame);
    int64_t *workspace = room(V, sizeof *workspace), dropped = -1;
    int status = occport_table_needs(lidar2img, &sizes, workspace, &sizes.slots, &sizes.rows);
    expect(status == OCCPORT_OK, "table_needs: status");
    const int enough = number() % 2 == 0;
    if (!enough) {
        sizes.slots = from_to(1, sizes.slots);
        sizes.rows = from_to(1, sizes.rows);
    }
    const size_t places = N * sizes.slots;
    int64_t *slots = room(places, sizeof *slots), *back = room(sizes.rows * V, sizeof *back);
    float *ref_uv = room(2 * places, sizeof *ref_uv), *weight = room(V, sizeof *weight);
    status = occport_table(lidar2img, &sizes, slots, ref_uv, back, weight, &dropped);
    expect(status == OCCPORT_OK, "table: status");
    expect(dropped >= 0 && (!enough || dropped == 0), "table: dropped");
    for (size_t i = 0; i < places; i++)
        expect(slots[i] >= 0 && (size_t)slots[i] < (V ? V : 1), "table: slots");
    for (size_t i = 0; i < 2 * places; i++)
        expect(ref_uv[i] >= 0 && ref_uv[i] < 1, "table: ref_uv");
    for (size_t i = 0; i < sizes.rows * V; i++)
        expect(back[i] >= 0 && (size_t)back[i] <= places, "table: back");
    for (size_t i = 0; i < V; i++)
        expect(weight[i] > 0 && weight[i] <= 1, "table: weight");
    free(lidar2img), free(workspace), free(slots), free(back), free(ref_uv), free(weight);
}

static void prepare(void)
{
    occport_image image = {.mean = {1, 2, 3}, .std = {1, 2, 0.5f}};
    image.height = from_to(1, 9);
    image.width = from_to(1, 9);
    image.divisor = from_to(1, 8);
    image.swap = (int)from_to(0, 1);
    image.row_bytes = 3 * image.width + from_to(0, 5);
    size_t height, width;
    expect(occport_padded(&image, &height, &width) == OCCPORT_OK, "padded: status");
    const size_t bytes = (image.height - 1) * image.row_bytes + 3 * image.width;
    uint8_t *pixels = room(bytes, 1);
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)number();
    float *out = room(3 * height * width, sizeof *out);
    expect(occport_preprocess(pixels, &image, out) == OCCPORT_OK, "preprocess: status");
    expect_finite(out, 3 * height * width, "preprocess: not finite");
    free(pixels), free(out);
}

int main(int argc, char **argv)
{
    const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    for (long i = 0; i < rounds; i++) {
        attend();
        convolve();
        tabulate();
        prepare();
    }
    printf("%ld rounds\n", rounds);
    return 0;
}
