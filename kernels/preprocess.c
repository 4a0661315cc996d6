/* An image as the network takes it: swap the channels if asked, subtract the mean, divide, and THEN pad with zeros at
 * the bottom and on the right. Padding before the subtraction would fill the border with -mean, which the network has
 * never seen.
 */
#include "occport_kernels.h"

static int check(const occport_image *image)
{
    if (!image)
        return OCCPORT_NULL_POINTER;
    const size_t sides[3] = {image->height, image->width, image->divisor};
    for (int i = 0; i < 3; i++)
        if (sides[i] < 1 || sides[i] > OCCPORT_MAX_SIDE)
            return OCCPORT_BAD_IMAGE;
    return image->row_bytes / 3 < image->width ? OCCPORT_BAD_IMAGE : OCCPORT_OK;
}

static size_t rounded_up(size_t size, size_t divisor)
{
    return (size + divisor - 1) / divisor * divisor;
}

int occport_padded(const occport_image *image, size_t *height, size_t *width)
{
    const int status = check(image);
    if (status)
        return status;
    if (!height || !width)
        return OCCPORT_NULL_POINTER;
    *height = rounded_up(image->height, image->divisor);
    *width = rounded_up(image->width, image->divisor);
    return OCCPORT_OK;
}

int occport_preprocess(const uint8_t *pixels, const occport_image *image, float *out)
{
    size_t height, width;
    int status = occport_padded(image, &height, &width);
    if (status)
        return status;
    const size_t source[] = {image->height, image->row_bytes}, padded[] = {3, height, width};
    status = occport_count(source, 2, NULL);
    if (!status)
        status = occport_count(padded, 3, NULL);
    if (status)
        return status;
    for (int channel = 0; channel < 3; channel++)
        if (!(image->std[channel] > 0.0f))
            return OCCPORT_BAD_STD;
    if (!pixels || !out)
        return OCCPORT_NULL_POINTER;

    for (size_t channel = 0; channel < 3; channel++) {
        const size_t from = image->swap ? 2 - channel : channel;
        for (size_t row = 0; row < height; row++) {
            float *line = out + (channel * height + row) * width;
            size_t column = 0;
            for (; row < image->height && column < image->width; column++) {
                line[column] = (float)pixels[row * image->row_bytes + 3 * column + from] - image->mean[channel];
                line[column] /= image->std[channel];
            }
            for (; column < width; column++)
                line[column] = 0.0f;
        }
    }
    return OCCPORT_OK;
}
