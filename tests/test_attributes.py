"""Attribute forms: both directions, and what a value cannot say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occport.errors import ModelFileError
from occport.graph import canonical, dialect
from occport.graph.attributes import ATTRIBUTE_FORMS, Window, lower_window, read_window
from occport.graph.contract import Attribute

PAIR = st.tuples(st.integers(1, 9), st.integers(1, 9))
WINDOWS = st.builds(Window, PAIR, PAIR, st.tuples(st.integers(0, 9), st.integers(0, 9)), PAIR, st.integers(1, 8), st.integers(1, 8))
CONTRACTS = {name: dialect.load(name).dcn for name in dialect.names() if dialect.load(name).dcn} | {"canonical": canonical.DCN_CONTRACT}
CONTRACTS["split"] = replace(
    canonical.DCN_CONTRACT,
    attributes=(
        *(Attribute(f"{field}{letter}", "int", f"{field}_{letter}") for field in ("stride", "padding", "dilation") for letter in "hw"),
        Attribute("g", "int", "groups"), Attribute("dg", "int", "deform_groups"),
    ),
)  # fmt: skip
CONTRACTS["begin and end"] = replace(
    canonical.DCN_CONTRACT,
    attributes=(
        Attribute("pads", "ints", "padding_begin_end"), Attribute("strides", "ints", "stride"), Attribute("dilations", "ints", "dilation"),
        Attribute("kernel_shape", "ints", "kernel"), Attribute("group", "int", "groups"), Attribute("offset_group", "int", "deform_groups"),
    ),
)  # fmt: skip


@given(WINDOWS, st.sampled_from(sorted(CONTRACTS)))
def test_there_and_back(window, name):
    values = lower_window(CONTRACTS[name], window)
    assert list(values) == [attribute.name for attribute in CONTRACTS[name].attributes]
    assert read_window(CONTRACTS[name], values, window.kernel, "conv") == window


def test_what_each_form_holds():
    window = Window((3, 5), (1, 2), (4, 6), (7, 8), 2, 4)
    assert {name: form.lower(window) for name, form in ATTRIBUTE_FORMS.items()} == {
        "stride": [1, 2], "padding": [4, 6], "dilation": [7, 8], "groups": 2, "deform_groups": 4, "kernel": [3, 5], "kernel_wh": [5, 3],
        "stride_nchw": [1, 1, 1, 2], "dilation_nchw": [1, 1, 7, 8], "padding_sides": [4, 4, 6, 6], "padding_begin_end": [4, 6, 4, 6],
        "stride_h": 1, "stride_w": 2, "padding_h": 4, "padding_w": 6, "dilation_h": 7, "dilation_w": 8,
    }  # fmt: skip


def test_what_is_missing_has_the_usual_value():
    assert read_window(CONTRACTS["dl"], {"padding": [1, 2]}, (3, 3), "conv") == Window((3, 3), (1, 1), (1, 2), (1, 1), 1, 1)


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("dl", "stride", [1, 2, 3]), ("dl", "stride", 1), ("dl", "groups", [1]), ("ascend", "strides", [2, 1, 1, 1]),
        ("ascend", "paddings", [0, 1, 1, 1]), ("ascend", "paddings", [1, 1]), ("ascend", "kernel_sizes", [3]),
        ("begin and end", "pads", [1, 1, 1, 2]), ("begin and end", "pads", [1, 1]),
    ],
)  # fmt: skip
def test_what_a_window_cannot_have_is_refused(name, attribute, value):
    with pytest.raises(ModelFileError, match=rf"^conv: attribute {attribute}: expected .*, got .*{str(value)[1:-1] or value}"):
        read_window(CONTRACTS[name], {attribute: value}, (3, 3), "conv")


def test_taps_of_a_window():
    window = Window((2, 3), (1, 1), (1, 2), (2, 3), 1, 1)
    assert window.taps(0).tolist() == [-1, -1, -1, 1, 1, 1]
    assert window.taps(1).tolist() == [-2, 1, 4, -2, 1, 4]
