"""Where and in which precision the network runs: what there is, what is refused, what is left alone."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from exporting import TINY, assert_refused, run_cli
from occport.commands import network_flags
from occport.errors import UserError
from occport.export import device
from occport.export.device import Setting, device_of, devices, hint, running
from occport.model.prepared import PRECISIONS, prepared
from occport.ops import native
from occport.use.predictor import Predictor
from test_predictor import frame

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch) -> None:
    """A PyTorch that says it has two."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    """A PyTorch that says it has none, whatever the machine has."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


def test_the_flags_know_the_precisions():
    assert network_flags.PRECISIONS == PRECISIONS


def test_devices_that_are_there(two_gpus):
    assert devices() == ["cpu", "cuda:0", "cuda:1"]
    assert device_of("cuda") == torch.device("cuda:0") and device_of("cuda:1") == torch.device("cuda:1") and device_of("cpu") == CPU
    assert Setting("fp16", "cuda").check() == torch.device("cuda:0")
    with pytest.raises(UserError) as caught:
        device_of("cuda:2")
    assert str(caught.value) == "device cuda:2: expected a device of this PyTorch: cpu, cuda:0, cuda:1, got none of that name"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta", "banana", "", "cpu:3", "CPU"])
def test_devices_that_are_not_there(name, no_gpu):
    with pytest.raises(UserError) as caught:
        Setting(device=name).check()
    assert str(caught.value) == (
        f"device {name}: expected a device of this PyTorch: cpu, got none of that name; a GPU needs its driver and a PyTorch build for it"
    )


def test_precisions_that_cannot_be(no_gpu):
    with pytest.raises(UserError, match="precision on a CPU: expected fp32 or bf16, got fp16"):
        Setting("fp16").check()
    with pytest.raises(UserError, match="precision: expected one of fp32, bf16, fp16, got int8"):
        Setting("int8").check()


FLAGS = {
    ("--precision", "fp16"): "precision on a CPU: expected fp32 or bf16, got fp16",
    ("--device", "cuda"): "device cuda: expected a device of this PyTorch: cpu, got none of that name",
    ("--precision", "int8"): "argument --precision: invalid choice: 'int8'",
}


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "export", "verify"])
def test_refused_on_the_command_line(verb, flags, no_gpu, tmp_path):
    flag, value = flags
    here = {
        "predict": ("--config", TINY, "-o", tmp_path / "out"),
        "evaluate": ("--config", TINY, "--against", tmp_path),
        "export": ("--config", TINY, "--output-dir", tmp_path / "out"),
        "verify": (tmp_path / "none.onnx",),
    }[verb]
    ours, wanted = flag, FLAGS[flags]
    if verb in ("export", "verify"):
        ours = flag.replace("--precision", "--reference-precision")
        wanted = wanted.replace("--precision", "--reference-precision")
    (tmp_path / "f.npz").write_bytes(b"")
    if verb == "evaluate":  # a second side that can be opened
        here = ("--config", TINY, "--against", TINY)
    assert_refused(run_cli(verb, *here, ours, value), wanted)
    assert not (tmp_path / "out").exists()


def test_a_network_that_is_handed_over_stays_as_it_is(tiny_network):
    model = tiny_network.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for setting in (Setting(), Setting("bf16")):
        made = setting.ready(model)
        assert made is not model and list(made.state_dict()) != list(before)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    own = copy.deepcopy(model)
    assert Setting().ready(own, own=True) is own


def test_later_changes_to_a_network_change_no_predictor(tiny_network):
    model, some = copy.deepcopy(tiny_network.model), frame()
    predictor = Predictor(model)
    labels, identity = predictor.predict(some).labels, dict(predictor.identity)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (predictor.predict(some).labels == labels).all() and predictor.identity == identity


def test_a_network_that_is_ready_already_is_refused(tiny_network):
    with pytest.raises(UserError, match=r"a network that is to run in PyTorch: got .*prepared.*; hand over the plain one"):
        Predictor(prepared(tiny_network.model))


def test_precision_and_device_of_a_file_are_its_own(runtime_export):
    with pytest.raises(UserError, match="precision: expected its own for an exported file, got bf16; leave it out"):
        Predictor(runtime_export.model, precision="bf16")
    with pytest.raises(UserError, match="device: expected a provider for an exported file, got cpu; leave it out"):
        Predictor(runtime_export.model, device="cpu")
    with pytest.raises(UserError, match="logits of all scales: expected a network in PyTorch, got an exported file"):
        Predictor(runtime_export.model).logits(frame())


def test_float32_is_float32_while_it_runs():
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), running(CPU):
        assert not torch.backends.cudnn.allow_tf32 and not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32 == before and torch.is_grad_enabled()


def test_too_little_memory_is_one_line():
    with pytest.raises(UserError) as caught, running(torch.device("cuda:0")):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")
    assert str(caught.value).startswith("memory of cuda:0: expected room for the network and one frame, got too little that is free; ")


def test_a_hint_only_where_kernels_are_missing(monkeypatch):
    missing = SimpleNamespace(library=None, reason="no C++ compiler (g++)")
    monkeypatch.setattr(native, "find", lambda: missing)
    assert hint(CPU) == native.status() != "" and "no C++ compiler (g++)" in hint(CPU)
    assert hint(torch.device("cuda:0")) == ""
    monkeypatch.setattr(native, "find", lambda: SimpleNamespace(library=None, reason=f"switched off by {device.SWITCH}"))
    assert hint(CPU) == ""
    monkeypatch.setattr(native, "find", lambda: SimpleNamespace(library=object(), reason="native kernels"))
    assert hint(CPU) == ""


@pytest.mark.parametrize("verb", ["predict", "verify"])
def test_the_hint_is_said_once(verb, monkeypatch, runtime_export, tmp_path):
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    for place in ("occport.use.torch_runner.hint", "occport.export.again.hint"):
        monkeypatch.setattr(place, lambda device: "kernels are missing")
    ran = run_cli("predict", "--config", TINY, "-o", tmp_path) if verb == "predict" else run_cli("verify", runtime_export.model)
    assert ran.status == 0 and ran.err.count("kernels are missing") == 1
