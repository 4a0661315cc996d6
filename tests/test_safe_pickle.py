"""Pickles are data here: what is in them comes out, what they name is not run, whatever is damaged ends in one line."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from occport.errors import FrameError
from occport.frames.safe_pickle import plain, read_pickle


def write(folder, content, protocol=4):
    path = folder / "infos.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def refused(path):
    with pytest.raises(FrameError) as caught:
        read_pickle(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_pickled_values_come_out_as_they_went_in(tmp_path):
    values = [
        np.arange(6, dtype=np.int32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([1.5], ">f4"),
        np.array([True, False]), np.array(["a", "bcd"]), np.array([b"x"]), np.zeros((0, 3)), np.float32(0.5), np.int64(-3),
        np.bool_(True), np.str_("text"), [np.float64(1), [2]],
    ]  # fmt: skip
    for protocol in range(6):
        stored = read_pickle(write(tmp_path, {"values": values}, protocol))["values"]
        for value, expected in zip(map(plain, stored), values, strict=True):
            if isinstance(expected, np.ndarray):
                assert value.dtype == expected.dtype
                np.testing.assert_array_equal(value, expected)
            else:
                assert value == expected and not isinstance(value, np.generic)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Calls(os.system, "true"), f"{os.system.__module__}.system"), (Calls(builtins.eval, "1"), "builtins.eval"),
        (Calls(builtins.getattr, "a", "b"), "builtins.getattr"), (Calls(np.load, "x"), "numpy.load"), (Path("a"), "pathlib.PosixPath"),
        (Calls(bytearray, 10), "builtins.bytearray"), (Calls(collections.defaultdict, list), "collections.defaultdict"),
    ],
)  # fmt: skip
def test_what_a_pickle_may_not_name(tmp_path, thing, name):
    for protocol in range(2, 6):
        line = refused(write(tmp_path, {"metadata": thing}, protocol))
        shown = name.replace("builtins", "__builtin__") if protocol == 2 else name
        assert f"infos.pkl: refused, it asks for {shown}: expected a pickle of plain data and numpy arrays; write the file again" in line


def test_nothing_was_run(tmp_path):
    witness = tmp_path / "witness"
    path = write(tmp_path, {"infos": [Calls(os.mkdir, str(witness))]})
    assert "mkdir" in refused(path)
    assert not witness.exists()


def test_a_dotted_name_is_no_way_round(tmp_path):
    content = b"\x80\x04\x8c\x05numpy\x8c\x0eos.path.system\x93."
    assert "it asks for numpy.os.path.system" in refused(write(tmp_path, content))
    assert "it asks for numpy.ndarray.tofile" in refused(write(tmp_path, b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."))


def test_a_forged_type_reads_no_memory(tmp_path):
    """numpy would take the bytes of an 'O' array, whose type claims to hold no references, for addresses."""
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08AAAAAAAAtb."
    )
    stored = read_pickle(write(tmp_path, content))
    assert plain(stored) is stored and not isinstance(stored, np.ndarray)


def test_a_pickle_cannot_change_what_the_next_one_gets(tmp_path):
    # BUILD with slot state: setattr(<what numpy.dtype stands for>, "func", list)
    spoil = b"\x80\x02cnumpy\ndtype\nN}U\x04funccbuiltins\nlist\ns\x86b."
    with pytest.raises(FrameError, match="expected a pickle file"):
        read_pickle(write(tmp_path, spoil))
    stored = read_pickle(write(tmp_path, {"values": np.eye(3)}))["values"]
    np.testing.assert_array_equal(plain(stored), np.eye(3))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", b"\x80\x09N.", b"\x80\x04R.", b"P0\n.", b"\x80\x02\x82\x01.", b"N"])
def test_no_pickle(tmp_path, content):
    assert "infos.pkl: expected a pickle file, got a damaged or different one" in refused(write(tmp_path, content))
