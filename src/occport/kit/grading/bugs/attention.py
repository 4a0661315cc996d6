"""Known bugs of kernels for multi-scale deformable attention. Letters as in `case.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...cases.case import Case, split_shape
from ...cases.golden import attention_weights, softmax
from ...cases.reading import Pixel, Way
from .bug import Bug, Inputs, Output
from .shared import reading_bugs, writing_bugs

_POINTS = ("sampling_locations", "sampling_offsets")
_PLACES = (*_POINTS, "reference_points")


def _changed(names: tuple[str, ...], change: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """The change, made to those of the quantities that the case has."""
    return lambda case: case.with_quantities({name: change(case.quantities[name]) for name in names if name in case.quantities})


def _flipped(array: np.ndarray) -> np.ndarray:
    return array[..., ::-1]


def _first_image(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:1], len(array), 0)


def _first_head(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:, :, :1], array.shape[2], 2)


def _coordinate_blocks(array: np.ndarray) -> np.ndarray:
    """(..., P, 2), taken for (..., 2, P)."""
    return array.reshape(*array.shape[:-2], 2, -1).swapaxes(-1, -2)


def _per_level(scale: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """Offsets times a factor of each level: (L, 2) of its (w, h)."""

    def inputs(case: Case) -> Case:
        if "sampling_offsets" not in case.quantities:
            return case
        factor = scale(case.float64("spatial_shapes")[:, ::-1])[:, None, :]  # (L, 1, 2)
        return case.with_quantities({"sampling_offsets": case.float64("sampling_offsets") * factor})

    return inputs


def _places_exchanged(case: Case) -> Case:
    """Wide form: reference + offset / (w, h) as it should be, and then x and y of it exchanged. (Narrow: nothing of it happens here.)"""
    if "sampling_offsets" not in case.quantities:
        return case
    flipped = _changed(("reference_points", "sampling_offsets"), _flipped)(case)
    return _per_level(lambda size: size / size[:, ::-1])(flipped)


def _weights(change: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """Softmaxed weights (A, Q, M, L, P), changed."""
    return lambda case: case.with_quantities({"attention_weights": change(attention_weights(case)), "attention_logits": None})


def _from_logits(change: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """Weights made from logits in another way than by softmax."""

    def inputs(case: Case) -> Case:
        if "attention_logits" not in case.quantities:
            return case
        return case.with_quantities({"attention_weights": change(case.float64("attention_logits")), "attention_logits": None})

    return inputs


def _only_first(axis: int) -> Inputs:
    def first(weights: np.ndarray) -> np.ndarray:
        place = np.arange(weights.shape[axis]).reshape(-1, *[1] * (-axis - 1))
        return np.where(place == 0, weights, 0.0)

    return _weights(first)


def _last_point_zero(weights: np.ndarray) -> np.ndarray:
    return np.where(np.arange(weights.shape[-1]) < weights.shape[-1] - 1, weights, 0.0)


def _points_first(weights: np.ndarray) -> np.ndarray:
    """(..., L, P), taken for (..., P, L)."""
    L, P = weights.shape[-2:]
    return weights.reshape(*weights.shape[:-2], P, L).swapaxes(-1, -2)


def _softmax_again(case: Case) -> Case:
    return case.with_quantities({"attention_weights": None, "attention_logits": attention_weights(case)})


def _value_taken_for(*axes: int) -> Inputs:
    """The value's buffer, read as if its axes stood in this order: (A, S, M, D) has 0, 1, 2, 3."""

    def inputs(case: Case) -> Case:
        value = case.quantities["value"]
        taken = value.reshape([value.shape[axis] for axis in axes]).transpose(np.argsort(axes))  # the axes given, back to (A, S, M, D)
        return case.with_quantities({"value": taken})

    return inputs


def _output_laid_out(*axes: int) -> Output:
    """The output's buffer, written with its axes in this order: (A, Q, M, D) has 0, 1, 2, 3."""
    return lambda case, output: output.reshape(split_shape(case)).transpose(axes).reshape(output.shape)


def _bug(name: str, what: str, look_at: str, inputs: Inputs) -> Bug:
    return Bug(name, "msda", what, look_at, inputs=inputs)


def _pixel(name: str, what: str, look_at: str, pixel: Pixel) -> Bug:
    return Bug(name, "msda", what, look_at, way=Way(pixel=pixel))


def _layout(name: str, what: str, look_at: str, output: Output) -> Bug:
    return Bug(name, "msda", what, look_at, output=output)


_POSITION = "the position: x = u*w - 0.5, y = v*h - 0.5 (grid_sample of 2*location - 1 with align_corners=False)"
_SOFTMAX = "where the softmax over all levels and points together is: in the node or before it, once"

ATTENTION_BUGS: tuple[Bug, ...] = (
    _bug(
        "xy_swapped", "locations are read as (y, x), where (x, y) is right",
        "the order of the last axis of the locations", _changed(_PLACES, _flipped),
    ),
    _bug(
        "sum_xy_swapped", "reference + offset / (w, h) is right, but used as (y, x)", "the order in which the finished location is read",
        _places_exchanged,
    ),
    _bug(
        "offsets_xy_swapped", "offsets alone are read as (y, x)",
        "the last axis of sampling_offsets", _changed(("sampling_offsets",), _flipped),
    ),
    _bug(
        "reference_xy_swapped", "reference points alone are read as (y, x)",
        "the last axis of reference_points", _changed(("reference_points",), _flipped),
    ),
    _bug(
        "coordinate_blocks", "all x of a level are read before all y, where (x, y) of each point is right",
        "the strides of points and coordinates", _changed(_POINTS, _coordinate_blocks),
    ),
    _pixel("half_pixel_missing", "positions are half a pixel too far right and down: x = u*w", _POSITION, lambda share, size: share * size),
    _pixel(
        "half_pixel_twice", "positions are half a pixel too far left and up: x = u*w - 1", _POSITION, lambda share, size: share * size - 1,
    ),
    _pixel(
        "align_corners", "positions are stretched over the pixels' centres: x = u*(w - 1)",
        _POSITION, lambda share, size: share * (size - 1),
    ),
    _pixel(
        "location_not_rescaled", "locations in [0, 1] are used as a grid in [-1, 1]",
        "the step grid = 2*location - 1", lambda share, size: (share + 1) / 2 * size - 0.5,
    ),
    *reading_bugs("msda"),
    _bug("softmax_again", "a softmax is applied to weights that are softmaxed already", _SOFTMAX, _softmax_again),
    _bug("softmax_missing", "logits are used as weights, without softmax", _SOFTMAX, _from_logits(lambda logits: logits)),
    _bug(
        "softmax_of_points", "the softmax runs over the points of each level alone",
        _SOFTMAX, _from_logits(lambda logits: softmax(logits, 1)),
    ),
    _bug("softmax_without_sum", "weights are exp(logit), not divided by their sum", _SOFTMAX, _from_logits(np.exp)),
    _bug(
        "weights_ignored", "every point counts fully: weights are not applied",
        "the factor attention_weights in the sum", _weights(np.ones_like),
    ),
    _bug(
        "weights_points_first", "weights are read as (points, levels), where (levels, points) is right",
        "the strides of attention_weights", _weights(_points_first),
    ),
    _bug(
        "offsets_by_hw", "offsets are divided by (h, w), where (w, h) is right",
        "the normaliser of sampling_offsets", _per_level(lambda size: size / size[:, ::-1]),
    ),
    _bug(
        "offsets_not_divided", "offsets are added to reference points as they are",
        "the normaliser of sampling_offsets: pixels / (w, h)", _per_level(lambda size: size),
    ),
    _bug("offsets_ignored", "offsets count as zero", "the sum reference + offset / (w, h)", _per_level(np.zeros_like)),
    _bug(
        "starts_ignored", "every level is read from the first row of value",
        "level_start_index",
        lambda case: case.with_quantities({"level_start_index": np.zeros(len(case.quantities["spatial_shapes"]), np.int64)}),
    ),
    _bug(
        "shapes_as_wh", "spatial_shapes are read as (w, h), where (h, w) is right",
        "the order within spatial_shapes", _changed(("spatial_shapes",), _flipped),
    ),
    _bug("first_level_alone", "only the first level is summed", "the loop over levels", _only_first(-2)),
    _bug("first_point_alone", "only the first point of each level is summed", "the loop over points", _only_first(-1)),
    _bug("last_point_lost", "the last point of each level is not summed", "the end of the loop over points", _weights(_last_point_zero)),
    _bug(
        "value_of_first_image", "every image reads the value of the first",
        "the image's stride in value", _changed(("value",), _first_image),
    ),
    _bug(
        "locations_of_first_image", "every image reads at the locations of the first",
        "the image's stride in the locations", _changed(_PLACES, _first_image),
    ),
    _bug(
        "locations_of_first_head", "every head reads at the locations of the first",
        "the head's stride in the locations", _changed(_POINTS, _first_head),
    ),
    _bug(
        "weights_of_first_head", "every head takes the weights of the first",
        "the head's stride in attention_weights", _weights(_first_head),
    ),
    _bug(
        "value_channels_first", "value is read as (A, S, D, M), where (A, S, M, D) is right",
        "the strides of value", _value_taken_for(0, 1, 3, 2),
    ),
    _bug(
        "value_heads_first", "value is read as (A, M, S, D), where (A, S, M, D) is right",
        "the strides of value", _value_taken_for(0, 2, 1, 3),
    ),
    _layout(
        "output_channels_first", "the output is written as (A, Q, D, M), where (A, Q, M, D) is right",
        "the strides of the output", _output_laid_out(0, 1, 3, 2),
    ),
    _layout(
        "output_heads_first", "the output is written as (A, M, Q, D), where (A, Q, M, D) is right",
        "the strides of the output", _output_laid_out(0, 2, 1, 3),
    ),
    _layout(
        "output_transposed", "the output is written as (A, M*D, Q), where (A, Q, M*D) is right",
        "the strides of the output", _output_laid_out(0, 2, 3, 1),
    ),
    *writing_bugs("msda"),
)  # fmt: skip
