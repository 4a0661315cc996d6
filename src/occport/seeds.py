"""Made-up weights from a seed: for everything that must run before, or without, a trained checkpoint.

A tensor is a function of the seed, its name and its shape alone, not of the order of the names. Draws are the raw integers of a
PCG64 generator, whose stream numpy guarantees, scaled to a uniform distribution: no logarithm or normal sampler stands between, so
that every machine gets the same bits. `RULES` gives each kind of tensor a centre and a standard deviation with which values pass
101 layers without fading or growing and with which nothing that could be laid out wrongly is zero, constant or symmetric.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import UserError

DRAW_STEP = 2**22  # values drawn at a time: keeps the temporary arrays small


class Rule(NamedTuple):
    """Values of the tensors whose name matches: uniform with a mean and a standard deviation."""

    pattern: re.Pattern[str]
    mean: float
    std: float
    per_input: bool  # divide `std` by the square root of the number of inputs that one output sums


def _rule(pattern: str, mean: float, std: float, *, per_input: bool = False) -> Rule:
    return Rule(re.compile(pattern), mean, std, per_input)


RELU = math.sqrt(2)  # makes up for the half of the values that a ReLU takes away

RULES = (  # the first that matches counts
    _rule(r"\.running_var$", 1, 0.2),  # at least 0.65
    _rule(r"\.running_mean$", 0, 0.1),
    _rule(r"\.(level|cams)_embeds$", 0, 0.5),
    _rule(r"\.volume_embedding\.", 0, 1),
    _rule(r"\.sampling_offsets\.bias$", 0, 1.5),  # with the weights: about 2 pixels of the feature map
    _rule(r"\.sampling_offsets\.weight$", 0, 1.5, per_input=True),
    _rule(r"\.attention_weights\.weight$", 0, 1, per_input=True),
    _rule(r"\.conv_offset\.bias$", 0, 0.5),  # with the weights: about 1.5 pixels, masks from 0.2 to 0.8
    _rule(r"\.conv_offset\.weight$", 0, 0.75, per_input=True),
    _rule(r"\.bias$", 0, 0.1),
    _rule(r"\.layer\d\.\d+\.bn3\.weight$", 0.25, 0.03),  # 33 residual branches add up
    _rule(r"\.(bn\d|downsample\.1|norms\.\d|deblocks?\.\d\.1)\.weight$", 1, 0.1),
    _rule(r"^img_backbone\.conv1\.weight$", 0, RELU / 60, per_input=True),  # pixels minus mean have a deviation of about 60
    _rule(r"^img_neck\.", 0, 1, per_input=True),
    _rule(r"\.(value_proj|output_proj|reference_points|ffns\.\d\.layers\.1)\.weight$", 0, 1, per_input=True),
    _rule(r"\.occ\.\d\.weight$", 0, 2, per_input=True),  # logits of a few units: labels that do not hang by a hair
    _rule(r"", 0, RELU, per_input=True),  # whatever a ReLU or a GroupNorm follows
)


def seed_weights(model: nn.Module, seed: int) -> None:
    """Overwrites every parameter and persistent buffer of a model in place; float32, on any device.

    The same seed gives the same bits on every machine. Step counters become 0.

    Args:
        model: `model.surroundocc.SurroundOcc`, or a module with names like its.
        seed: 0 or more.

    Raises:
        UserError: a negative seed.
    """
    if seed < 0:
        raise UserError("seed", expected="0 or a positive number", got=str(seed))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                _fill(tensor, name, seed)
            else:
                tensor.zero_()


def _fill(tensor: Tensor, name: str, seed: int) -> None:
    """Draws a tensor in place, in row-major order, `DRAW_STEP` values at a time."""
    rule = next(rule for rule in RULES if rule.pattern.search(name))
    std = rule.std / math.sqrt(math.prod(tensor.shape[1:])) if rule.per_input else rule.std
    stream = np.random.PCG64([seed, zlib.crc32(name.encode())])
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), DRAW_STEP):
        part = flat[start : start + DRAW_STEP]
        part.copy_(torch.from_numpy(_uniform(stream, part.numel(), rule.mean, std)))


def _uniform(stream: np.random.PCG64, count: int, mean: float, std: float) -> NDArray[np.float32]:
    """(count) float32, uniform with this mean and standard deviation; each 64-bit draw gives two values."""
    raw = np.asarray(stream.random_raw(count + count % 2 >> 1), dtype="<u8").view("<i4")[:count]
    # a uniform distribution reaches sqrt(3) deviations to either side
    values = raw.astype(np.float32)
    values *= np.float32(std * math.sqrt(3) / 2**31)
    values += np.float32(mean)
    return values
