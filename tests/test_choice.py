"""Which network the flags mean; it can travel, and opens to the same network elsewhere."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporting import TINY, write_manifest
from occport.cli import OneLineParser
from occport.commands.network_flags import add_network_arguments, choice_of
from occport.errors import CheckpointError, ConfigError, ModelFileError, UserError
from occport.use.choice import Choice
from test_predictor import frame


def parsed(*arguments: object) -> argparse.Namespace:
    parser = OneLineParser()
    parser.add_argument("--against")
    add_network_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def chosen(*arguments: object) -> Choice:
    return choice_of(parsed(*arguments))


def test_flags_become_a_choice():
    assert chosen("--config", "a.py") == Choice(config=Path("a.py"))
    flags = ("--config", "a.py", "--cfg-options", "x=1", "y=2", "--checkpoint", "w.pth", "--seed", 3, "--threads", 2)
    assert chosen(*flags) == Choice(Path("a.py"), ("x=1", "y=2"), Path("w.pth"), 3, threads=2)
    assert chosen("--model", "a.onnx", "--provider", "CPU") == Choice(model=Path("a.onnx"), provider="CPU")
    there = chosen("--config", "a.py", "--precision", "bf16", "--device", "cuda:1")
    assert there == Choice(Path("a.py"), precision="bf16", device="cuda:1")
    low = chosen("--model", "a.onnx", "--precision", "fp16", "--device", "cuda", "--against", "torch")
    assert low.torch_of() == Choice(made_from=Path("a.onnx"), precision="fp16", device="cuda")
    against = chosen("--model", "a.onnx", "--checkpoint", "w.pth", "--against", "torch")
    assert against.checkpoint == Path("w.pth") and against.torch_of() == Choice(checkpoint=Path("w.pth"), made_from=Path("a.onnx"))


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "nothing": ((), "network: expected --config FILE.py (PyTorch) or --model FILE.onnx (ONNX Runtime), got neither; give one of them"),
    "both": (("--config", "a.py", "--model", "a.onnx"), "got both; give one of them"),
    "provider": (("--config", "a.py", "--provider", "CPU"), "--provider: expected --model FILE.onnx with it, got --config, which"),
    "options": (("--model", "a.onnx", "--cfg-options", "a=1"), "--cfg-options: expected --config with it, got --model, whose config is in"),
    "checkpoint": (("--model", "a", "--checkpoint", "b"), "--checkpoint: expected --config with it, got --model, which holds its weights"),
    "other file": (("--model", "a", "--checkpoint", "b", "--against", "c.onnx"), "--checkpoint: expected --config with it, got --model"),
    "precision": (
        ("--model", "a", "--precision", "bf16"),
        "--precision: expected --config with it, got --model, which has its own precision; leave it out",
    ),
    "device": (("--model", "a", "--device", "cpu"), "--device: expected --config with it, got --model, whose device is its --provider"),
    "threads": (("--config", "a.py", "--threads", 0), "--threads: expected at least 1, got 0"),
    "seed": (("--config", "a.py", "--seed", -1), "--seed: expected at least 0, got -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_flags_that_do_not_go_together(name):
    arguments, message = REFUSED[name]
    with pytest.raises(UserError) as caught:
        chosen(*arguments)
    assert message in str(caught.value)


def test_choices_of_none_or_several_networks():
    with pytest.raises(UserError, match="network: expected a config or an exported file, one of them, got neither"):
        Choice()
    with pytest.raises(UserError, match=r"one of them, got a\.py and b\.onnx"):
        Choice(Path("a.py"), model=Path("b.onnx"))
    with pytest.raises(UserError, match="the network that a file was made from: expected an exported file, got a config"):
        Choice(Path("a.py")).torch_of()


def test_a_choice_travels(runtime_export):
    for choice in (Choice(TINY, ("image_size=[60, 96]",), None, 4), Choice(model=runtime_export.model, threads=1).torch_of()):
        there = pickle.loads(pickle.dumps(choice))
        assert there == choice and hash(there) == hash(choice)
        some = frame()
        assert np.array_equal(there.open().predict(some).labels, choice.open().predict(some).labels)


def test_a_config_opens_to_its_network(tiny_network, tmp_path):
    seeded = Choice(TINY).open()
    assert seeded.trained is False and seeded.described == "PyTorch float32, weights seeded with 0"
    path = tmp_path / "weights.pth"
    torch.save(tiny_network.model.state_dict(), path)
    loaded = Choice(TINY, checkpoint=path, threads=1).open()
    assert loaded.trained is True and f"weights of {path} (fingerprint " in loaded.described
    assert loaded.identity == seeded.identity != Choice(TINY, seed=1).open().identity
    some = frame()
    assert np.array_equal(loaded.predict(some).labels, seeded.predict(some).labels)
    smaller = Choice(TINY, ("point_cloud_range=[-40, -40, -5, 40, 40, 3]",))
    with pytest.raises(ConfigError):  # two ranges that must agree
        smaller.open()


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="expected a file, got nothing there"):
        Choice(tmp_path / "none.py").open()
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        Choice(TINY, checkpoint=tmp_path / "none.pth").open()
    for choice in (Choice(model=tmp_path / "none.onnx"), Choice(model=tmp_path / "none.onnx").torch_of()):
        with pytest.raises(ModelFileError, match=r"none\.onnx: expected an exported \.onnx file, got no such file"):
            choice.open()
    with pytest.raises(UserError, match="execution provider 'CPU': expected an exported file, got a network in PyTorch"):
        Choice(TINY, provider="CPU").open()


def test_a_precision_is_part_of_the_network():
    low = Choice(TINY, precision="bf16").open()
    exact = Choice(TINY).open()
    assert low.described == "PyTorch bfloat16, weights seeded with 0" and (low.precision, exact.precision) == ("bf16", "fp32")
    assert dict(low.identity) == {**exact.identity, "precision": "bf16"} and "precision" not in exact.identity
    some = frame()
    assert 0.9 < (low.predict(some).labels == exact.predict(some).labels).mean() < 1


def test_what_cannot_run_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="precision on a CPU: expected fp32 or bf16, got fp16; bf16 is the fast one"):
        Choice(tmp_path / "none.py", precision="fp16").open()
    with pytest.raises(UserError, match="device nowhere: expected a device of this PyTorch: cpu"):
        Choice(tmp_path / "none.py", device="nowhere").open()


def test_only_networks_on_a_cpu_keep_the_memory(monkeypatch, runtime_export):
    asked: list[bool] = []
    monkeypatch.setattr("occport.use.choice.keep_pages", lambda: asked.append(True))
    Choice(model=runtime_export.model).open()
    assert not asked
    Choice(TINY).open()
    assert asked == [True]


def test_a_file_opens_with_its_provider(runtime_export):
    some = frame()
    file = Choice(model=runtime_export.model, provider="CPU", threads=1).open()
    want = Choice(TINY).open().predict(some).labels
    assert file.identity["provider"] == "CPU" and (file.predict(some).labels == want).mean() > 0.999
    with pytest.raises(ModelFileError, match="execution provider 'none'"):
        Choice(model=runtime_export.model, provider="none").open()


def test_the_network_that_a_file_was_made_from(runtime_export, tiny_network, tmp_path):
    origin = Choice(model=runtime_export.model).torch_of()
    opened = origin.open()
    some = frame()
    assert opened.identity == Choice(TINY).open().identity and opened.trained is False
    assert np.array_equal(opened.predict(some).labels, Choice(TINY).open().predict(some).labels)
    path = tmp_path / "weights.pth"
    state: dict[str, Any] = {name: tensor.clone() for name, tensor in tiny_network.model.state_dict().items()}
    torch.save(state, path)
    assert Choice(model=runtime_export.model, checkpoint=path).torch_of().open().identity == opened.identity
    state["pts_bbox_head.occ.3.weight"][0, 0] += 1e-3
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"fingerprint of the weights: .*give the checkpoint of the export with --checkpoint"):
        Choice(model=runtime_export.model, checkpoint=path).torch_of().open()


def test_a_checkpoint_that_has_moved(runtime_export, tmp_path):
    copy = Path(shutil.copy(runtime_export.model, tmp_path))
    write_manifest(runtime_export, copy)
    table = json.loads(copy.with_suffix(".json").read_text())
    table["weights"].update(checkpoint=str(tmp_path / "gone.pth"), seed=None)
    copy.with_suffix(".json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        Choice(model=copy).torch_of().open()
