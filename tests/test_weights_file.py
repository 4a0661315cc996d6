"""Reading weights files that nobody has to trust: whatever is damaged or hostile is refused in one line and runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from occport.checkpoint import fingerprint, load_checkpoint
from occport.errors import CheckpointError
from occport.weights_file import read_state
from toy_weights import (
    State,
    Toy,
    good_file,
    meta_of_mmcv,
    other_weights,
    refused,
    save_bare,
    save_legacy,
    save_mmcv,
    save_safetensors,
)  # fmt: skip


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_scalars_in_meta(module: str, legacy: bool, toy: Toy, path: Path):
    numpy_names = {"numpy.core.multiarray": b"numpy.core.multiarray", "numpy._core.multiarray": b"numpy._core.multiarray"}
    replace_in_pickle(path, lambda data: re.sub(rb"numpy\._?core\.multiarray", numpy_names[module], data), other_weights(), legacy=legacy)
    assert numpy_names[module] in path.read_bytes()
    load_checkpoint(toy, path)
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())


def replace_in_pickle(path: Path, change: Callable[[bytes], bytes], state: State, *, legacy: bool) -> None:
    """Saves as mmcv does and edits the pickle inside."""
    buffer = io.BytesIO()
    torch.save({"meta": meta_of_mmcv(), "state_dict": OrderedDict(state)}, buffer, _use_new_zipfile_serialization=not legacy)
    if legacy:
        path.write_bytes(change(buffer.getvalue()))
        return
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            target.writestr(record.filename, change(data) if record.filename.endswith("data.pkl") else data)


def test_an_archive_without_checksums_loads(toy: Toy, path: Path):
    torch.serialization.set_crc32_options(False)
    try:
        save_mmcv(other_weights(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    load_checkpoint(toy, path)
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of tensors, or one under 'state_dict', got a list"),
        ({}, "got a dict of nothing"),
        ({"model": {"a": 1}, "epoch": 3}, "got a dict of model, epoch"),
        ({"state_dict": {}, "meta": {}}, "got a dict of nothing"),
        ({"state_dict": "text"}, "got a str"),
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, "b: expected a dense tensor, got a int"),
        ({"state_dict": {"a": torch.eye(3).to_sparse()}}, "a: expected a dense tensor, got a sparse, quantised or empty one"),
        ({"state_dict": {"a": torch.zeros(3, device="meta")}}, "a: expected a dense tensor, got a sparse, quantised or empty one"),
        ({"state_dict": {1: torch.zeros(3)}}, "int: expected a dense tensor"),
    ],
)
def test_other_contents(content: object, message: str, toy: Toy, path: Path):
    torch.save(content, path)
    assert message in refused(toy, path)


# --- what is damaged or hostile


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, print, io.open, Path, np.load, torch.hub.load])
@pytest.mark.parametrize("place", ["meta", "state_dict", "top"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    function: Callable[..., object], place: str, legacy: bool, toy: Toy, path: Path, tmp_path: Path
):
    trace = tmp_path / "executed"
    call = Call(function, f"touch {trace}" if function is os.system else str(trace))
    content: object = {"meta": {}, "state_dict": other_weights()}
    if place == "top":
        content = call
    else:
        content = {**content, place: {**other_weights(), "x": call}}  # type: ignore[dict-item]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    line = refused(toy, path)
    assert function.__name__.rpartition(".")[2] in line and "a pickle that calls " in line
    assert line.endswith("weights files never run code here: save `model.state_dict()` alone")
    assert not trace.exists()


def test_a_numpy_object_in_meta_is_not_built(toy: Toy, path: Path, tmp_path: Path):
    torch.save({"meta": np.array([Call(os.mkdir, str(tmp_path / "executed"))]), "state_dict": other_weights()}, path)
    assert "mkdir" in refused(toy, path)
    assert not (tmp_path / "executed").exists()


def test_a_whole_model_is_refused(toy: Toy, path: Path):
    torch.save(nn.Linear(2, 2), path)
    assert "got a pickle that calls torch.nn.modules.linear.Linear" in refused(toy, path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "got an empty file; download it again"),
        (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", "got a web page; the download link is dead"),
        (b"\n  <html><body>404 Not Found</body></html>", "got a web page; the download link is dead"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "got a git-lfs pointer"),
        (b"\x1f\x8b\x08\x00", "got a gzip archive; unpack it"),
        (b"hello", "got 5 bytes of something else; give a .pth, .pt or .safetensors"),
        (b"\x80\x02K\x01.", "Invalid magic number; corrupt file?; the file is damaged"),
        (struct.pack("<Q", 4) + b"{xx}" + bytes(8), "the file is damaged"),
        (pickle.dumps({"a": 1}, protocol=4), "the file is damaged, cut off, or not written by torch.save"),
    ],
)
def test_files_that_are_no_weights(head: bytes, message: str, toy: Toy, path: Path):
    path.write_bytes(head)
    assert message in refused(toy, path)


def test_a_torch_file_under_another_name(toy: Toy, tmp_path: Path):
    for save in (save_bare, save_legacy):
        save(other_weights(), tmp_path / "weights.safetensors")
        assert refused(toy, tmp_path / "weights.safetensors").endswith("expected safetensors, got a torch file; rename it to .pth")
    save_safetensors(other_weights(), tmp_path / "safe.pth")
    load_checkpoint(toy, tmp_path / "safe.pth")
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())


def test_missing_files_and_folders(toy: Toy, tmp_path: Path):
    assert refused(toy, tmp_path / "none.pth").endswith("none.pth: expected a file, got No such file or directory; check the path")
    assert "got Is a directory; check the path" in refused(toy, tmp_path)


def test_other_archives(toy: Toy, path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("surroundocc.pth", b"x")
    assert "got a zip archive of surroundocc.pth; give the file with the state dict" in refused(toy, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"x")
        archive.writestr("model/constants.pkl", b"x")
    assert "got TorchScript" in refused(toy, path)


def test_packed_records(toy: Toy, path: Path):
    save_bare(other_weights(), path)
    with zipfile.ZipFile(path) as source:
        records = {record.filename: source.read(record) for record in source.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in records.items():
            target.writestr(name, data)
    assert "expected plain records, got packed ones; save it again with torch.save" in refused(toy, path)


def readable(path: Path) -> dict[str, Tensor] | None:
    """The state, or None where the file was refused in one line."""
    try:
        return read_state(path)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None


@pytest.mark.parametrize("kind", ["mmcv", "legacy", "safetensors"])
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str, path: Path):
    data = good_file(kind)
    path.write_bytes(data)
    assert readable(path) is not None
    for length in range(0, len(data), max(len(data) // 60, 1)):
        path.write_bytes(data[:length])
        assert readable(path) is None, length
    path.write_bytes(data[:-1])
    assert readable(path) is None


@pytest.mark.parametrize("kind", ["mmcv", "legacy", "safetensors"])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_flipped_bits_are_refused_or_harmless(kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    path = tmp_path_factory.mktemp("flipped") / "weights.pth"
    damaged = bytearray(good_file(kind))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=3)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    state = readable(path)
    assert state is None or all(isinstance(value.sum().item(), (int, float)) for value in state.values() if value.numel() < 1000)


def test_a_flipped_bit_in_a_weight_is_found(path: Path):
    data = bytearray(good_file("mmcv"))
    place = data.index(struct.pack("<f", -1.0))
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"Bad CRC-32 .*; the file is damaged"):
        read_state(path)


@given(noise=st.binary(max_size=300), kind=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x20\0\0\0\0\0\0\0{"]))
@settings(deadline=None, max_examples=100)
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: bytes):
    path = tmp_path_factory.mktemp("noise") / "weights.pth"
    path.write_bytes(kind + noise)
    assert readable(path) is None
