"""Known bugs of kernels for modulated deformable convolution. Letters as in `case.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...cases.case import Case, Window, window
from ...cases.reading import Pixel, Way
from .bug import Bug, Inputs, Output
from .shared import reading_bugs, writing_bugs

Order = Callable[[np.ndarray], np.ndarray]


def _quantity(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    return lambda case: case.with_quantities({name: change(case.quantities[name])})


def _attributes(change: Callable[[Window], dict[str, object]]) -> Inputs:
    return lambda case: case.with_attributes(change(window(case)))


def _regrouped(quantity: str, change: Order) -> Inputs:
    """Offsets (A, G, 2*T, Ho, Wo) or masks (A, G, T, Ho, Wo), changed."""

    def inputs(case: Case) -> Case:
        array = case.quantities[quantity]
        A, _, Ho, Wo = array.shape
        split = array.reshape(A, window(case).deform_groups, -1, Ho, Wo)  # (A, G*.., Ho, Wo) to (A, G, .., Ho, Wo)
        return case.with_quantities({quantity: change(split).reshape(array.shape)})

    return inputs


def _both(first: Inputs, second: Inputs) -> Inputs:
    return lambda case: second(first(case))


def _pairs_swapped(channels: np.ndarray) -> np.ndarray:
    A, G, _, Ho, Wo = channels.shape
    return channels.reshape(A, G, -1, 2, Ho, Wo)[:, :, :, ::-1]  # (A, G, 2*T, Ho, Wo) to (A, G, T, 2, Ho, Wo)


def _from_blocks(swapped: bool) -> Order:
    """Channels taken for two blocks of T, one of each coordinate, where (dy, dx) pairs are right."""

    def change(channels: np.ndarray) -> np.ndarray:
        A, G, _, Ho, Wo = channels.shape
        blocks = channels.reshape(A, G, 2, -1, Ho, Wo)  # (A, G, 2*T, Ho, Wo) to (A, G, 2, T, Ho, Wo)
        return (blocks[:, :, ::-1] if swapped else blocks).swapaxes(2, 3)

    return change


def _first_group(channels: np.ndarray) -> np.ndarray:
    return np.repeat(channels[:, :1], channels.shape[1], 1)


def _first_image(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:1], len(array), 0)


def _taken_for(order: tuple[int, ...]) -> Order:
    """A buffer, read as if its axes stood in this order."""
    return lambda array: array.reshape([array.shape[axis] for axis in order]).transpose(np.argsort(order))


def _taps_transposed(quantity: str, coordinates: int) -> Inputs:
    """Taps taken for column after column, where row after row is right."""

    def inputs(case: Case) -> Case:
        array = case.quantities[quantity]
        A, _, Ho, Wo = array.shape
        kh, kw = case.quantities["weight"].shape[2:]
        columns = array.reshape(A, -1, kw, kh, coordinates, Ho, Wo)  # (A, G*T*coordinates, Ho, Wo) to (A, G, kw, kh, coordinates, Ho, Wo)
        return case.with_quantities({quantity: columns.swapaxes(2, 3).reshape(array.shape)})

    return inputs


def _first_channels_for_all(case: Case) -> Case:
    return case.with_attributes({"groups": 1})


def _bias_times(factor: int) -> Inputs:
    def inputs(case: Case) -> Case:
        return case.with_quantities({"bias": case.quantities["bias"] * factor if factor else None}) if "bias" in case.quantities else case

    return inputs


def _sigmoid(mask: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-mask.astype(np.float64))))


def _output_laid_out(*axes: int) -> Output:
    """The output's buffer, written with its axes in this order: (A, O, Ho, Wo) has 0, 1, 2, 3."""
    return lambda case, output: output.transpose(axes).reshape(output.shape)


def _turned(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[1], pair[0]


def _bug(name: str, what: str, look_at: str, inputs: Inputs) -> Bug:
    return Bug(name, "dcn", what, look_at, inputs=inputs)


def _pixel(name: str, what: str, look_at: str, pixel: Pixel) -> Bug:
    return Bug(name, "dcn", what, look_at, way=Way(pixel=pixel))


def _layout(name: str, what: str, look_at: str, axes: tuple[int, ...]) -> Bug:
    return Bug(name, "dcn", what, look_at, output=_output_laid_out(*axes))


_POSITION = "the position: y = ho*stride - padding + i*dilation + dy, in whole pixels from the first pixel's centre"
_OFFSETS = "the order of the offset channels: dy of tap 0, dx of tap 0, dy of tap 1, ..."
_WEIGHTS = "the strides of the weight"

DEFORM_CONV_BUGS: tuple[Bug, ...] = (
    _bug("offsets_as_dxdy", "offset pairs are read as (dx, dy), where (dy, dx) is right", _OFFSETS, _regrouped("offset", _pairs_swapped)),
    _bug(
        "offsets_in_blocks", "offsets are read as all dy, then all dx, where pairs are right",
        _OFFSETS, _regrouped("offset", _from_blocks(False)),
    ),
    _bug(
        "offsets_in_blocks_dx_first", "offsets are read as all dx, then all dy, where pairs are right",
        _OFFSETS, _regrouped("offset", _from_blocks(True)),
    ),
    _bug(
        "offsets_by_columns", "offsets are read for taps column after column, where row after row is right",
        "the tap's index: i*kw + j", _taps_transposed("offset", 2),
    ),
    _bug(
        "offsets_ignored", "offsets count as zero: an ordinary convolution",
        "whether the offsets reach the kernel", _quantity("offset", np.zeros_like),
    ),
    _bug("offsets_negated", "offsets are subtracted", "the sign of the offsets", _quantity("offset", np.negative)),
    _pixel("half_pixel_right", "positions are half a pixel too far right and down", _POSITION, lambda position, size: position + 0.5),
    _pixel("half_pixel_left", "positions are half a pixel too far left and up", _POSITION, lambda position, size: position - 0.5),
    _pixel(
        "align_corners_grid", "a grid made for align_corners=True is read with align_corners=False",
        _POSITION, lambda position, size: position * size / np.maximum(size - 1, 1) - 0.5,
    ),
    _pixel(
        "align_corners_read", "a grid made for align_corners=False is read with align_corners=True",
        _POSITION, lambda position, size: (position + 0.5) * (size - 1) / size,
    ),
    *reading_bugs("dcn"),
    _bug("mask_ignored", "the mask is not applied", "the factor mask of each sample", _quantity("mask", np.ones_like)),
    _bug(
        "sigmoid_again", "a sigmoid is applied to the mask, which has passed one already",
        "where the sigmoid is: before the node", _quantity("mask", _sigmoid),
    ),
    _bug(
        "mask_by_columns", "the mask is read for taps column after column, where row after row is right",
        "the tap's index: i*kw + j", _taps_transposed("mask", 1),
    ),
    _bug(
        "mask_of_first_tap", "every tap takes the mask of the first",
        "the tap's stride in the mask", _regrouped("mask", lambda masks: np.repeat(masks[:, :, :1], masks.shape[2], 2)),
    ),
    _bug(
        "weight_in_out", "the weight is read as (C/groups, O, kh, kw), where (O, C/groups, kh, kw) is right",
        _WEIGHTS, _quantity("weight", _taken_for((1, 0, 2, 3))),
    ),
    _bug(
        "weight_by_columns", "the weight is read as (O, C/groups, kw, kh), where (O, C/groups, kh, kw) is right",
        _WEIGHTS, _quantity("weight", _taken_for((0, 1, 3, 2))),
    ),
    _bug(
        "weight_channels_last", "the weight is read as (O, kh, kw, C/groups), where (O, C/groups, kh, kw) is right",
        _WEIGHTS, _quantity("weight", _taken_for((0, 2, 3, 1))),
    ),
    _bug(
        "weight_flipped", "the kernel is turned by 180 degrees: a convolution, where a correlation is right",
        "the tap's index in the weight", _quantity("weight", lambda weight: weight[:, :, ::-1, ::-1]),
    ),
    _bug(
        "padding_ignored", "padding counts as 0",
        "the attribute padding: its name, and whether it is read", _attributes(lambda w: {"padding": (0, 0)}),
    ),
    _bug(
        "padding_doubled", "padding counts twice",
        "padding that is applied to the map and to the positions", _attributes(lambda w: {"padding": (2 * w.padding[0], 2 * w.padding[1])}),
    ),
    _bug(
        "dilation_ignored", "dilation counts as 1",
        "the attribute dilation: its name, and whether it is read", _attributes(lambda w: {"dilation": (1, 1)}),
    ),
    _bug(
        "stride_ignored", "stride counts as 1",
        "the attribute stride: its name, and whether it is read", _attributes(lambda w: {"stride": (1, 1)}),
    ),
    _bug(
        "pairs_xy_swapped", "stride, padding and dilation are read as (x, y), where (y, x) is right",
        "the order of the attributes' two numbers",
        _attributes(lambda w: {"stride": _turned(w.stride), "padding": _turned(w.padding), "dilation": _turned(w.dilation)}),
    ),
    _bug(
        "first_deform_group_for_all", "all channels take offsets and mask of the first deform group",
        "the deform group's stride", _both(_regrouped("offset", _first_group), _regrouped("mask", _first_group)),
    ),
    _bug(
        "offsets_of_first_deform_group", "all channels take the offsets of the first deform group",
        "the deform group's stride in offset", _regrouped("offset", _first_group),
    ),
    _bug(
        "mask_of_first_deform_group", "all channels take the mask of the first deform group",
        "the deform group's stride in mask", _regrouped("mask", _first_group),
    ),
    _bug(
        "groups_ignored", "all output channels read the input channels of the first group",
        "the attribute groups and the group's part of the input index", _first_channels_for_all,
    ),
    _bug("bias_missing", "the bias is not added", "the fifth input", _bias_times(0)),
    _bug("bias_twice", "the bias is added twice", "a bias added by the kernel and again after it, or once per group", _bias_times(2)),
    _bug(
        "input_of_first_image", "every image reads the input of the first", "the image's stride in input", _quantity("input", _first_image),
    ),
    _bug(
        "offsets_of_first_image", "every image takes the offsets of the first",
        "the image's stride in offset", _quantity("offset", _first_image),
    ),
    _bug("mask_of_first_image", "every image takes the mask of the first", "the image's stride in mask", _quantity("mask", _first_image)),
    _bug(
        "input_channels_last", "the input is read as (A, H, W, C), where (A, C, H, W) is right",
        "the strides of input", _quantity("input", _taken_for((0, 2, 3, 1))),
    ),
    _layout(
        "output_channels_last", "the output is written as (A, Ho, Wo, O), where (A, O, Ho, Wo) is right",
        "the strides of the output", (0, 2, 3, 1),
    ),
    _layout(
        "output_rows_columns", "the output is written as (A, O, Wo, Ho), where (A, O, Ho, Wo) is right",
        "the strides of the output", (0, 1, 3, 2),
    ),
    *writing_bugs("dcn"),
)  # fmt: skip
