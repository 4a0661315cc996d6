"""Loading is all or nothing: what loads, what does not fit and what the user is told, and fingerprints."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from occport.checkpoint import compare_state, fingerprint, load_checkpoint, read_state
from occport.config import read_config
from occport.model.surroundocc import SurroundOcc, build_model
from occport.seeds import seed_weights
from reference import CONFIGS, keys
from toy_weights import FORMATS, Toy, other_weights, refused, save_bare, save_mmcv


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


# --- what loads


@cache
def micro(seed: int) -> SurroundOcc:
    model = build_model(read_config(CONFIGS / "surroundocc_micro.py"))
    seed_weights(model, seed)
    return model


@pytest.mark.parametrize("kind", FORMATS)
def test_the_network_round_trips(kind: str, path: Path):
    source, target = micro(3), micro(4)
    seed_weights(target, 4)
    FORMATS[kind](source.state_dict(), path)
    report = load_checkpoint(target, path)
    assert fingerprint(target.state_dict()) == fingerprint(source.state_dict()) == fingerprint(read_state(path))
    assert report.fits and not report.renamed and not report.converted and not report.kept
    assert sum(report.loaded.values()) == len(source.state_dict())
    assert list(report.loaded) == [
        "img_backbone", "img_neck", "pts_bbox_head.transfer_conv", "pts_bbox_head.volume_embedding", "pts_bbox_head.transformer.0",
        "pts_bbox_head.transformer.1", "pts_bbox_head.transformer.2", "pts_bbox_head.deblocks", "pts_bbox_head.occ",
    ]  # fmt: skip
    assert report.describe()[0] == f"{path}: {len(source.state_dict())} tensors"
    path.unlink()


@pytest.mark.parametrize("kind", FORMATS)
def test_values_arrive(kind: str, toy: Toy, path: Path):
    state = other_weights()
    FORMATS[kind](state, path)
    load_checkpoint(toy, path)
    assert all(torch.equal(value, state[name]) for name, value in toy.state_dict().items())


def test_weights_survive_the_file(toy: Toy, path: Path):
    save_mmcv(other_weights(), path)
    load_checkpoint(toy, path)
    path.write_bytes(b"")  # nothing of the model is mapped from it
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["mmcv", "safetensors"])
def test_other_precisions_become_float32(dtype: torch.dtype, kind: str, toy: Toy, path: Path):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in other_weights().items()}
    FORMATS[kind](state, path)
    assert read_state(path)["img_neck.weight"].dtype == dtype
    report = load_checkpoint(toy, path)
    assert toy.img_neck.weight.dtype == torch.float32
    assert torch.equal(toy.img_neck.weight, state["img_neck.weight"].float())
    short = str(dtype).removeprefix("torch.")
    assert report.converted == {short: 12}
    assert f"  converted 12: {short} to float32" in report.describe()


def test_prefix_of_a_wrapper(toy: Toy, path: Path):
    save_mmcv({f"module.{name}": value for name, value in other_weights().items()}, path)
    report = load_checkpoint(toy, path)
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())
    assert report.renamed == {"prefix of a data-parallel wrapper": 13}


def test_old_names_of_deformable_convolutions(toy: Toy, path: Path):
    save_mmcv({name.replace("conv2.conv_offset", "conv2_offset"): value for name, value in other_weights().items()}, path)
    report = load_checkpoint(toy, path)
    assert fingerprint(toy.state_dict()) == fingerprint(other_weights())
    assert list(report.renamed.values()) == [2]
    assert "renamed 2: name in mmcv's DCN before its version 2" in "\n".join(report.describe())


def test_both_names_at_once_are_refused(toy: Toy, path: Path):
    state = other_weights()
    save_mmcv({**state, "img_backbone.layer3.0.conv2_offset.bias": torch.zeros(27)}, path)
    assert "0 missing, 1 unexpected, 0 misshapen (unexpected img_backbone.layer3.0.conv2_offset.bias (27,))" in refused(toy, path)


def test_step_counters_may_be_missing(toy: Toy, path: Path):
    toy.img_backbone.bn1.num_batches_tracked += 7
    save_bare({name: value for name, value in other_weights().items() if "num_batches" not in name}, path)
    report = load_checkpoint(toy, path)
    assert report.kept == ("img_backbone.bn1.num_batches_tracked",)
    assert "  not in the file 1: num_batches_tracked, counts training steps and has no part in the result" in report.describe()
    assert toy.img_backbone.bn1.num_batches_tracked == 7


@pytest.mark.parametrize(("config", "file"), [("surroundocc", "surroundocc"), ("surroundocc_nosemantic", "surroundocc_nosemantic")])
def test_names_and_shapes_are_those_of_the_official_checkpoints(config: str, file: str):
    expected = keys(file)
    with torch.device("meta"):
        model = SurroundOcc(read_config(CONFIGS / f"{config}.py"))
    assert {name: (tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()} == expected
    assert len(expected) == 954


# --- what does not fit


def test_missing_unexpected_and_misshapen_are_counted_and_named(toy: Toy, path: Path):
    state = other_weights()
    del state["img_neck.bias"]
    state["img_neck.extra"] = torch.zeros(2, 2)
    state["img_backbone.conv1.weight"] = torch.zeros(4, 3, 5, 5)
    save_bare(state, path)
    line = refused(toy, path)
    assert line == (
        f"{path} does not fit the config: got 1 missing, 1 unexpected, 1 misshapen (missing img_neck.bias (2,); "
        "unexpected img_neck.extra (2, 2); misshapen img_backbone.conv1.weight expected (4, 3, 3, 3) got (4, 3, 5, 5)); "
        "this is a SurroundOcc of another config: give the one it was trained with"
    )


def test_compare_state_reports_without_raising(toy: Toy, path: Path):
    state = other_weights()
    del state["img_neck.bias"]
    before = fingerprint(toy.state_dict())
    _, report = compare_state(toy, state, path)
    assert not report.fits
    assert [item.name for item in report.missing] == ["img_neck.bias"] and report.missing[0].expected == "(2,)"
    assert report.describe()[-1] == "  missing img_neck.bias (2,)"
    assert fingerprint(toy.state_dict()) == before


def test_whole_numbers_are_no_weights(toy: Toy, path: Path):
    save_bare({**other_weights(), "img_neck.bias": torch.ones(2, dtype=torch.int8)}, path)
    assert "misshapen img_neck.bias expected (2,) got (2,) int8" in refused(toy, path)


def test_no_semantics_in_the_semantic_config(toy: Toy, path: Path):
    save_bare(other_weights(classes=1), path)
    line = refused(toy, path)
    assert "misshapen pts_bbox_head.occ.0.weight expected (17, 4, 1, 1, 1) got (1, 4, 1, 1, 1)" in line
    assert line.endswith("this checkpoint has no semantics: use surroundocc_nosemantic.py")


def test_semantics_in_the_config_without(path: Path):
    save_bare(other_weights(), path)
    assert refused(Toy(classes=1), path).endswith("this checkpoint has semantics: use surroundocc.py")


FCOS3D = ("backbone.conv1.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.cls_convs.0.conv.weight")
PRETRAIN_LOADED = ("img_backbone.conv1.weight", "img_neck.fpn_convs.0.conv.weight", "bbox_head.conv_cls.weight")
BEVFORMER = ("img_backbone.conv1.weight", "pts_bbox_head.bev_embedding.weight", "pts_bbox_head.transformer.encoder.layers.0.norms.0.weight")
RESNET = ("conv1.weight", "layer1.0.conv1.weight", "fc.weight")


@pytest.mark.parametrize(
    ("names", "guess"),
    [
        (FCOS3D, "this is a backbone pretrain (FCOS3D"),
        (PRETRAIN_LOADED, "this is a backbone pretrain (FCOS3D"),
        (("img_backbone.conv1.weight",), "this is a backbone pretrain (FCOS3D"),
        (BEVFORMER, "this is another network, such as BEVFormer"),
        (RESNET, "this is a plain ResNet"),
        (("encoder.weight",), "this is another network: give surroundocc.pth"),
    ],
)
def test_other_networks_are_guessed(names: tuple[str, ...], guess: str, toy: Toy, path: Path):
    save_mmcv({name: torch.zeros(2) for name in names}, path)
    line = refused(toy, path)
    assert guess in line and re.search(r"\d+ missing, \d+ unexpected, \d+ misshapen", line)


@pytest.mark.parametrize(("value", "count"), [(torch.nan, 2), (torch.inf, 1), (-torch.inf, 1)])
def test_values_that_are_not_finite(value: float, count: int, toy: Toy, path: Path):
    state = other_weights()
    state["img_backbone.bn1.running_var"][:count] = value
    save_bare(state, path)
    line = refused(toy, path)
    assert f"{path}: img_backbone.bn1.running_var: expected finite values, got NaN or infinity in {count} of 4;" in line
    state["img_neck.bias"][0] = value
    save_bare(state, path)
    assert f"got NaN or infinity in {count} of 4, and in 1 more; the training" in refused(toy, path)


def test_values_too_large_for_float32(toy: Toy, path: Path):
    save_bare({**other_weights(), "img_neck.bias": torch.tensor([1.0, 1e300], dtype=torch.float64)}, path)
    assert "img_neck.bias: expected finite values, got NaN or infinity in 1 of 2" in refused(toy, path)


def test_a_huge_tensor_without_memory_behind_it_is_refused_by_its_shape(toy: Toy, path: Path):
    save_bare({**other_weights(), "img_neck.bias": torch.zeros(1).expand(10**12)}, path)
    assert "got (1000000000000,)" in refused(toy, path)


def test_control_characters_of_names_do_not_reach_the_terminal(toy: Toy, path: Path):
    save_bare({**other_weights(), "\x1b[2J\nimg": torch.zeros(1)}, path)
    assert r"unexpected \x1b[2J\nimg (1,)" in refused(toy, path)


# --- fingerprints


def test_fingerprint_sees_values_names_shapes_and_dtypes_but_not_order():
    state = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(1.5), "empty": torch.zeros(0, 3)}
    base = fingerprint(state)
    assert re.fullmatch(r"[0-9a-f]{64}", base)
    assert fingerprint(dict(reversed(state.items()))) == base
    assert fingerprint({**state, "bn.num_batches_tracked": torch.tensor(9)}) == base
    assert fingerprint({**state, "b": state["b"].t().contiguous().t()}) == base
    others = [
        {**state, "b": state["b"] + 1e-6},
        {**state, "b": state["b"].view(3, 2)},
        {**state, "b": state["b"].double()},
        {**state, "c": torch.zeros(0)},
        {"b": state["a"], "a": state["b"], "empty": state["empty"]},
    ]
    assert len({base, *map(fingerprint, others)}) == len(others) + 1


def test_fingerprint_is_pinned():
    """It stands in manifests: it must not change between versions."""
    state = {"w": torch.tensor([1.0, -2.0]), "h": torch.tensor([0.5], dtype=torch.bfloat16)}
    assert fingerprint(state) == "b9cb1a7e79120f5ab5a857537d3f9bbf6ac7cc085644893e6c1267534dd2d5ed"
