"""Their arrays in our layout: whatever dtype, order, padding and blocks they have, the numbers come back."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.bringup.diff.hints import Hint, read_map, with_scales
from occport.bringup.diff.layout import fitted
from occport.bringup.dumps.index import Entry
from occport.errors import UserError

MAP = ("A", "C", "H", "W")
NOTHING = Hint()


def entry(array: np.ndarray, axes: tuple[str, ...] = ()) -> Entry:
    return Entry("t", "node", "Conv", "backbone", "inner", array.dtype.name, array.shape, axes, "t.npy", "")


def image(shape=(2, 6, 5, 7), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def read(theirs, golden, axes=(), told=NOTHING, raw=False):
    return fitted(theirs, entry(golden, axes), golden, told, raw)


def last(array):
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def padded(array, axis, to):
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, to - array.shape[axis])
    return np.pad(array, widths)


def blocks(array, size):
    count = -(-array.shape[1] // size)
    full = padded(array, 1, count * size)
    return np.ascontiguousarray(np.moveaxis(full.reshape(array.shape[0], count, size, *array.shape[2:]), 2, -1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a, ""),
        (lambda a: a[None], ""),
        (last, "channels last"),
        (lambda a: padded(a, 1, 8), "padded 6 → 8"),
        (lambda a: padded(last(a), 3, 32), "channels last, padded 6 → 32"),
        (lambda a: blocks(a, 4), "channels in blocks of 4"),
        (lambda a: blocks(a, 16), "channels in blocks of 16"),
        (lambda a: a.reshape(2, 6, 35), "in order"),
        (lambda a: a.reshape(-1), "flat numbers"),
        (lambda a: last(a).reshape(-1), "channels last"),
        (lambda a: np.ascontiguousarray(a.transpose(3, 0, 1, 2)), "axes [3, 0, 1, 2]"),
    ],
)
def test_every_layout_is_found_and_told(change, words):
    golden = image()
    got = read(change(golden), golden, MAP)
    np.testing.assert_array_equal(got.array, golden)
    assert (words in got.note) if words else got.note == ""


def test_a_layout_is_found_although_the_numbers_are_wrong():
    golden = image()
    theirs = last(golden)
    theirs[0] *= 1.5
    np.testing.assert_array_equal(read(theirs, golden, MAP).array, np.moveaxis(theirs, -1, 1))


def test_volumes_have_channels_last_too():
    golden = image((1, 4, 3, 5, 6))
    np.testing.assert_array_equal(read(last(golden), golden, ("B", "C", "Z", "Y", "X")).array, golden)
    np.testing.assert_array_equal(read(last(golden), golden).array, golden)


def test_an_ambiguous_layout_is_said_and_can_be_told():
    golden = image((1, 4, 4, 5))
    theirs = np.random.default_rng(1).normal(size=(1, 4, 5, 4)).astype(np.float32)  # another tensor altogether
    with pytest.raises(ValueError, match=r"it could be .* as well as .*; tell which with --map"):
        read(theirs, golden, MAP)
    np.testing.assert_array_equal(read(theirs, golden, MAP, Hint(layout="channels_last")).array, np.moveaxis(theirs, -1, 1))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats(dtype):
    golden = image()
    got = read(golden.astype(dtype), golden, MAP)
    assert got.array.dtype == np.float32 and got.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(got.array, golden.astype(dtype).astype(np.float32))


def test_bfloat16_in_words_of_16_bits():
    golden = image()
    words = golden.astype(ml_dtypes.bfloat16).view(np.uint16)
    got = read(words, golden, MAP)
    assert got.dtype == "bfloat16" and "bfloat16" in got.note
    np.testing.assert_array_equal(got.array, golden.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_bytes_tell_their_dtype_by_their_number(dtype):
    golden = image()
    raw = np.frombuffer(golden.astype(dtype).tobytes(), np.uint8)
    got = read(raw, golden, MAP, raw=True)
    assert got.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(got.array, golden.astype(dtype).astype(np.float32))


def as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def test_bytes_of_padded_channels_are_found_or_need_a_shape():
    golden = image()
    for raw, words in ((padded(golden, 1, 8), "padded 6 → 8"), (padded(last(golden), 3, 32), "channels last, padded 6 → 32")):
        got = read(as_bytes(raw), golden, MAP, raw=True)
        np.testing.assert_array_equal(got.array, golden)
        assert words in got.note
    raw = as_bytes(padded(golden[:, ::-1, ::-1], 1, 8))  # like ours in no reading, and of another size
    with pytest.raises(ValueError, match="tell shape and layout with --map"):
        read(raw, golden, MAP, raw=True)
    told = Hint(dtype="float32", shape=(2, 8, 5, 7))
    np.testing.assert_array_equal(read(raw, golden, MAP, told, raw=True).array, golden[:, ::-1, ::-1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(("turn", "words"), [(last, "channels last"), (lambda a: blocks(a, 32), "blocks of 32"), (lambda a: a, "")])
def test_bytes_of_any_dtype_and_layout_at_once(dtype, turn, words):
    golden = image((3, 40, 6, 5))
    stored = golden.astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    got = read(as_bytes(turn(stored)), golden, MAP, raw=True)
    np.testing.assert_array_equal(got.array, stored.astype(np.float32))
    assert words in got.note and got.dtype == dtype


def test_a_told_layout_tells_the_dtype_too():
    golden = image()
    got = read(as_bytes(last(golden).astype(np.float16)), golden, MAP, Hint(layout="channels_last"), raw=True)
    np.testing.assert_array_equal(got.array, golden.astype(np.float16).astype(np.float32))


def test_bytes_with_the_high_one_first_and_unsigned_ones():
    golden = image()
    got = read(as_bytes(golden.astype(">f4")), golden, MAP, raw=True)
    np.testing.assert_array_equal(got.array, golden)
    assert "the high byte first" in got.note
    stored = np.round(golden * 30 + 120).astype(np.uint8)
    got = read(as_bytes(stored), golden, MAP, raw=True)
    assert got.dtype == "uint8" and np.abs(got.array - golden).max() < 0.05
    words = np.round(golden * 3000 + 32000).astype(np.uint16)
    assert read(words, golden, MAP).dtype == "uint16"


def test_numbers_like_nothing_are_said_to_be_so():
    golden, other = image(), image(seed=9)
    for theirs, raw in ((as_bytes(other), True), (other.reshape(-1), False)):
        got = read(theirs, golden, MAP, raw=raw)
        assert "like ours in no reading that was tried" in got.note
        np.testing.assert_array_equal(got.array, other)
    assert read(other, golden, MAP).note == ""  # its own shape leaves nothing open


def test_what_are_no_numbers_is_refused():
    golden = image((2, 3))
    for odd in (np.zeros((2, 3), "complex64"), np.zeros((2, 3), "datetime64[s]"), np.zeros((2, 3), [("a", "f4")])):
        with pytest.raises(ValueError, match="dump it again as numbers"):
            read(odd, golden)
    with pytest.raises(ValueError, match="the map tells dtype float16, the file holds float32"):
        read(golden, golden, (), Hint(dtype="float16"))
    half = golden.astype(np.float16)
    np.testing.assert_array_equal(read(half.view(np.uint16), golden, (), Hint(dtype="float16")).array, half.astype(np.float32))


def test_quantised_numbers_with_a_scale_told_and_fitted():
    golden = image()
    stored = np.clip(np.rint(golden / 0.05) + 3, -128, 127).astype(np.int8)
    got = read(stored, golden, MAP, Hint(scale=0.05, zero=3.0))
    assert got.dtype == "int8" and np.abs(got.array - golden).max() <= 0.0251
    fit = read(stored, golden, MAP)
    assert "fitted" in fit.note and np.abs(fit.array - golden).max() < 0.06
    with pytest.raises(ValueError, match="tell its scale with --scale t=SCALE,ZERO"):
        read(np.random.default_rng(9).integers(-9, 9, golden.shape).astype(np.int8), golden, MAP)


def test_whole_numbers_stay_whole():
    golden = np.arange(24).reshape(4, 6)
    assert read(golden.astype(np.int32), golden).array.dtype == np.int64
    np.testing.assert_array_equal(read(golden.astype(np.float32), golden).array, golden)
    flags = golden > 7
    np.testing.assert_array_equal(read(flags.astype(np.uint8), flags).array, flags)


def test_padding_that_is_not_zero_is_told():
    golden = image()
    theirs = padded(golden, 1, 8)
    theirs[:, 7] = 1
    assert "what is padded is not zero" in read(theirs, golden, MAP).note


@pytest.mark.parametrize(
    ("theirs", "told", "fragment"),
    [
        (image((2, 9, 5, 7)), NOTHING, "shape [2, 9, 5, 7], where ours is [2, 6, 5, 7]"),
        (image().reshape(-1)[:-1], NOTHING, "tell shape and layout"),
        (image(), Hint(shape=(3, 3)), "the map tells shape [3, 3]"),
    ],
)
def test_what_does_not_fit_is_said(theirs, told, fragment):
    with pytest.raises(ValueError) as error:
        read(theirs, image(), MAP, told)
    assert fragment in str(error.value)


def test_bytes_that_are_no_whole_number_are_said():
    with pytest.raises(ValueError, match="do not hold"):
        read(np.zeros(421, np.uint8), image(), MAP, raw=True)
    with pytest.raises(ValueError, match="no whole number of float32"):
        read(np.zeros(7, np.uint8), image(), MAP, Hint(dtype="float32"), raw=True)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_layout_comes_back(data):
    shape = tuple(data.draw(st.permutations([1, 2, 3, 5, 6, 7]))[:4])
    golden = image(shape, data.draw(st.integers(0, 99)))
    order = tuple(data.draw(st.permutations(range(4))))
    dtype = data.draw(st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]))
    theirs = np.ascontiguousarray(golden.transpose(order)).astype(dtype)
    np.testing.assert_array_equal(read(theirs, golden, MAP).array, golden.astype(dtype).astype(np.float32))


def test_maps_of_every_kind(tmp_path):
    want = {"a": Hint("x"), "b": Hint("y", "float16", (1, 2), "channels_last", 0.5, 3.0)}
    table = {"theirs": "y", "dtype": "float16", "shape": [1, 2], "layout": "channels_last", "scale": 0.5, "zero": 3}
    (tmp_path / "m.json").write_text(json.dumps({"a": "x", "b": table}))
    (tmp_path / "m.toml").write_text("\n".join(['a = "x"', "[b]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]))
    (tmp_path / "m.csv").write_text("ours,theirs,dtype,shape,layout,scale,zero\na,x,,,,,\nb,y,float16,1x2,channels_last,0.5,3\n")
    for name in ("m.json", "m.toml", "m.csv"):
        got = read_map(tmp_path / name)
        assert got["b"] == want["b"] and got["a"].theirs == "x" and math.isnan(got["a"].scale)
    assert with_scales(got, ["a=0.25,7"])["a"].zero == 7 and with_scales({}, ["q=2"])["q"].scale == 2


@pytest.mark.parametrize(
    ("name", "text", "fragment"),
    [
        ("m.json", "{", "expected JSON, TOML, or CSV"),
        ("m.json", "[1]", "expected a table, got list"),
        ("m.json", '{"a": {"teirs": "x"}}', "unknown key 'teirs'"),
        ("m.json", '{"a": 3}', "entry 'a'"),
        ("m.json", '{"a": {"layout": "NHWC"}}', "not one of same, channels_last"),
        ("m.json", '{"a": {"dtype": "hlaf"}}', "entry 'a'"),
        ("m.csv", "theirs\nx\n", "CSV with a column `ours`"),
    ],
)
def test_a_wrong_map_names_the_entry(name, text, fragment, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_map(tmp_path / name)
    assert fragment in str(error.value)
    with pytest.raises(UserError, match="No such file"):
        read_map(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=x", "a=0", "a=nan", "a=1,x"])
def test_a_wrong_scale_is_refused(text):
    with pytest.raises(UserError, match="--scale"):
        with_scales({}, [text])
