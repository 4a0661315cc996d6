"""What the commands print, and that their flags reach the export."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from exporting import TINY, assert_refused, run_cli
from occport.commands import export as command
from occport.errors import ExportError
from occport.export import pipeline
from occport.export.device import Setting
from occport.export.request import Request
from occport.graph import dialect
from occport.graph.settings import Settings


class Reached(Exception):
    """Carries the request out of the command."""


def requested(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Request:
    def stop(request: Request, progress: object) -> None:
        raise Reached(request)

    monkeypatch.setattr(pipeline, "export", stop)
    with pytest.raises(Reached) as caught:
        run_cli("export", "--config", TINY, *flags)
    request = caught.value.args[0]
    assert isinstance(request, Request)
    return request


def test_defaults(monkeypatch):
    request = requested(monkeypatch)
    assert request == Request(config=request.config, output_dir=Path("out"))
    assert request.config.name == "tiny" and request.settings == Settings() and request.seed == 0 and request.budgets is None


FLAGS: list[tuple[list[str], str, object]] = [
    (["--checkpoint", "w.pth"], "checkpoint", Path("w.pth")),
    (["--seed", "7"], "seed", 7),
    (["--frame", "a/infos.pkl:3"], "frame", "a/infos.pkl:3"),
    (["--calibration", "tables"], "calibration", "tables"),
    (["--budget", "20864:3,2624,384:2"], "budgets", ((20864, 3), (2624, None), (384, 2))),
    (["--dialect", "standard"], "dialect", "standard"),
    (["--opset", "17"], "opset", 17),
    (["--precision", "bf16"], "precision", "bf16"),
    (["--functions"], "functions", True),
    (["--msda", "gather"], "msda", "gather"),
    (["--dcn", "deformconv"], "dcn", "deformconv"),
    (["--outputs", "logits"], "outputs", "logits"),
    (["--levels", "finest"], "levels", "finest"),
    (["--label-dtype", "int32"], "label_dtype", "int32"),
    (["--softmax"], "softmax", True),
    (["--no-dropped"], "with_dropped", False),
    (["--img-rank", "4"], "img_rank", 4),
    (["--lidar2img-rank", "3"], "lidar2img_rank", 3),
    (["--rename", "img=a", "--rename", "lidar2img=b"], "renames", (("img", "a"), ("lidar2img", "b"))),
    (["--external-data"], "external_data", True),
    (["--output-dir", "elsewhere"], "output_dir", Path("elsewhere")),
    (["--save-io", "pb"], "save_io", "pb"),
    (["--op-name", "dcn=A::B", "--op-name", "msda=C::D"], "settings", Settings(op_names=(("dcn", "A::B"), ("msda", "C::D")))),
    (["--scalar-rank", "1"], "settings", Settings(scalar_rank=1)),
    (["--scalar-dtype", "int32"], "settings", Settings(scalar_dtype="int32")),
    (["--scalar-place", "initializer"], "settings", Settings(scalar_place="initializer")),
    (["--num-embed", "head"], "settings", Settings(num_embed="head")),
    (["--shapes-dtype", "int32"], "settings", Settings(shapes_dtype="int32")),
    (["--im2col-step", "32"], "settings", Settings(im2col_step=32)),
    (["--dcn-bias", "input"], "settings", Settings(dcn_bias="input")),
    (["--reference-precision", "bf16", "--device", "cpu"], "reference", Setting("bf16", "cpu")),
]


@pytest.mark.parametrize(("flags", "field", "value"), FLAGS)
def test_each_flag_reaches_its_field_and_no_other(flags, field, value, monkeypatch):
    request, plain = requested(monkeypatch, *flags), requested(monkeypatch)
    assert getattr(request, field) == value
    assert {name for name, other in vars(plain).items() if vars(request)[name] != other} == {field}


def test_config_options_reach_the_config(monkeypatch):
    request = requested(monkeypatch, "--cfg-options", "model.img_backbone.depth=101")
    assert request.config.backbone.depth == 101 and requested(monkeypatch).config.backbone.depth == 50


def test_every_flag_is_told_of():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    named = {flag for flags, _, _ in FLAGS for flag in flags if flag.startswith("--")} | {"--config", "--cfg-options", "--help"}
    assert {action.option_strings[-1] for action in parser._actions} == named


@pytest.mark.parametrize("text", ["", ",", "1,2,3,", "a:1,2,3", "1:2:3,4,5", "1 2,3,4", "²,2,3"])
def test_malformed_budgets(text):
    with pytest.raises(ExportError, match="--budget: expected slots"):
        command._budgets(text)


def test_budgets_may_have_spaces():
    assert command._budgets("1:2, 3 ,4") == ((1, 2), (3, None), (4, None))


def test_dialects_are_listed():
    ran = run_cli("dialects")
    assert ran.status == 0 and [line.split()[0] for line in ran.out.splitlines()[1:]] == dialect.names()
    assert "DL::MultiScaleDeformableAttnFunction" in ran.out and "MultiscaleDeformableAttnPlugin_TRT" in ran.out


def test_contract_in_full():
    ran = run_cli("dialects", "dl")
    assert ran.status == 0
    operators = ("DL::MultiScaleDeformableAttnFunction", "DL::ModulatedDeformConv2d")
    assert all(word in ran.out for word in (*operators, "im2col_step", "spatial_shapes", "num_queries", "guess: "))
    assert "opset 11" in ran.out and ran.out.count("  input      ") >= 12


def test_standard_dialect_has_no_contract():
    ran = run_cli("dialects", "standard")
    assert ran.status == 0 and "::" not in ran.out and "  input " not in ran.out


@pytest.mark.parametrize("name", dialect.names())
def test_every_contract_is_printed_in_full(name):
    ran, made = run_cli("dialects", name), dialect.load(name)
    assert ran.status == 0 and made.checked_against in ran.out
    for contract in filter(None, (made.msda, made.dcn)):
        assert contract.title in ran.out
        assert all(f" {port.name} " in ran.out for port in contract.inputs)
        assert all(f" {attribute.name} " in ran.out for attribute in contract.attributes)
        assert all(f"limit      {limit.size}: {limit.describe()}" in ran.out for limit in contract.limits)


def test_a_dialect_file_is_printed_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "dl"\n[msda]\nop_type = "Attend"\n', encoding="utf-8")
    assert "DL::Attend" in run_cli("dialects", str(path)).out
    assert_refused(run_cli("dialects", "no.toml"), "dialect file no.toml: expected a TOML file, got No such file")


def test_export_tells_files_nodes_and_checks(runtime_export):
    lines = runtime_export.ran.out.splitlines()
    assert f"{runtime_export.model}  {runtime_export.model.stat().st_size:,} bytes" in lines
    nodes = runtime_export.manifest["nodes"]
    assert f"{nodes} nodes; 4 DL::MultiScaleDeformableAttnFunction, 3 DL::ModulatedDeformConv2d" in lines
    assert any(line.startswith("guess: ") for line in lines) and any(line.startswith("config: model.use_grid_mask") for line in lines)
    assert any(line.startswith("budgets (slots:cameras, fine to coarse): 192:3, 48:3, 6:3") for line in lines)


def test_standard_export_tells_of_no_custom_nodes(standard_export):
    nodes = standard_export.manifest["nodes"]
    (line,) = [line for line in standard_export.ran.out.splitlines() if line.startswith(f"{nodes} nodes")]
    assert "::" not in line
