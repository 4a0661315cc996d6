"""What decides a file, and its way through JSON."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporting import MICRO, TINY
from occport.config import read_config
from occport.errors import ExportError, ModelFileError
from occport.export.request import Request, open_guesses
from occport.export.spec import CALIBRATIONS, Spec, check_renames, from_json, to_json
from occport.export.trace import Outputs
from occport.graph import dialect as dialects
from occport.graph.functions import Arithmetics
from occport.graph.settings import Settings, with_settings
from occport.model.projection import Budget

CONFIGS = [read_config(TINY), read_config(MICRO), read_config(MICRO.with_name("surroundocc_nosemantic.py"))]


def plain(calibration: str = "runtime") -> Spec:
    """The spec of a plain export of the tiny network."""
    budgets = (Budget(192, 3), Budget(48, 3), Budget(6, 3))
    outputs = Outputs("labels", (0, 1, 2, 3))
    return Spec(CONFIGS[0], (64, 96), budgets, calibration, dialects.load("dl"), 11, False, outputs)


def targets() -> st.SearchStrategy[dict]:
    """Dialect, opset, functions and arithmetic that go together."""
    changed = st.builds(
        Settings,
        op_names=st.lists(st.tuples(st.sampled_from(["dcn", "msda"]), st.sampled_from(["A::B", "C::D"])), max_size=1).map(tuple),
        scalar_rank=st.sampled_from([None, 0, 1]),
        scalar_dtype=st.sampled_from([None, "int64", "int32"]),
        scalar_place=st.sampled_from([None, "constant", "initializer"]),
        num_embed=st.sampled_from([None, "all", "head"]),
        im2col_step=st.none() | st.integers(1, 1 << 40),
        dcn_bias=st.sampled_from([None, "batchnorm", "add", "input"]),
    )
    plain = st.tuples(st.sampled_from(dialects.names()).map(dialects.load), st.integers(11, 22), st.just(False), st.just(Arithmetics()))
    bodies = st.tuples(
        changed.map(lambda chosen: with_settings(dialects.load("dl"), chosen)), st.integers(16, 22), st.just(True),
        st.builds(Arithmetics, st.sampled_from(["", "gather", "gridsample"]), st.sampled_from(["", "gather"])),
    )  # fmt: skip
    return plain | bodies


SPECS = st.builds(
    lambda target, **others: Spec(dialect=target[0], opset=target[1], functions=target[2], arithmetics=target[3], **others),
    targets(),
    config=st.sampled_from(CONFIGS),
    image_hw=st.tuples(st.integers(32, 2000), st.integers(32, 2000)),
    budgets=st.tuples(*[st.builds(Budget, st.integers(1, 80000), st.integers(1, 8))] * 3),
    calibration=st.sampled_from(CALIBRATIONS),
    outputs=st.builds(
        Outputs,
        kind=st.sampled_from(["labels", "logits", "probabilities"]),
        scales=st.sampled_from([(0, 1, 2, 3), (3,)]),
        label_dtype=st.sampled_from(["int64", "int32"]),
        softmax=st.booleans(),
    ),
    with_dropped=st.booleans(),
    img_rank=st.sampled_from([4, 5]),
    lidar2img_rank=st.sampled_from([3, 4]),
    renames=st.lists(st.tuples(st.sampled_from(["img", "lidar2img"]), st.text(max_size=5)), max_size=2).map(tuple),
)


@settings(deadline=None, max_examples=60)
@given(SPECS)
def test_json_round_trip(spec):
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec


def test_every_field_is_in_the_json():
    table = to_json(plain())
    assert table.keys() == vars(plain()).keys()
    assert table["budgets"][0] == {"slots": 192, "cameras": 3}
    assert table["config"]["levels"][0]["volume_h"] == 12


@pytest.mark.parametrize("field", sorted(set(vars(plain())) - {"precision"}))  # older manifests have none
def test_missing_field_is_refused(field):
    table = to_json(plain())
    del table[field]
    with pytest.raises(ModelFileError, match="the manifest's spec: expected what occport export writes, got KeyError"):
        from_json(table)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dialect", {"speed": 1}), ("dialect", None), ("arithmetics", {"x": 1}), ("functions", True), ("opset", 10), ("outputs", {}),
     ("budgets", [{"slots": 1}]), ("image_hw", [1]), ("renames", [["a"]]),
     ("calibration", "sometimes"), ("calibration", None)],
)  # fmt: skip
def test_field_of_another_kind_is_refused(field, value):
    table = copy.deepcopy(to_json(plain()))
    table[field] = value
    with pytest.raises(ModelFileError, match="export again"):
        from_json(table)


def test_ports_of_each_calibration():
    tables = [f"level{level}_{field}" for level in range(3) for field in ("slots", "ref_uv", "back", "weight")]
    labels = [f"labels_scale{scale}" for scale in range(4)]
    assert plain().input_names == ["img", "lidar2img"]
    assert plain().output_names == [*labels, "dropped"]
    assert plain("tables").input_names == ["img", *tables]
    assert plain("tables").output_names == labels
    assert plain("tables").geometry_output_names == [*tables, "dropped"]
    assert list(plain("tables").geometry_output_shapes()) == [*tables, "dropped"]
    assert plain("fixed").input_names == ["img"]
    assert plain("fixed").output_names == labels
    assert replace(plain(), with_dropped=False).output_names == labels


def test_shapes():
    spec = plain()
    assert spec.input_shapes() == {"img": ("float32", (1, 4, 3, 64, 96)), "lidar2img": ("float32", (1, 4, 4, 4))}
    flat = replace(spec, img_rank=4, lidar2img_rank=3)
    assert flat.input_shapes() == {"img": ("float32", (4, 3, 64, 96)), "lidar2img": ("float32", (4, 4, 4))}
    assert flat.geometry_input_shapes() == {"lidar2img": ("float32", (4, 4, 4))}
    assert spec.output_shapes() == {
        "labels_scale0": ("int64", (1, 2, 3, 1)),
        "labels_scale1": ("int64", (1, 4, 6, 2)),
        "labels_scale2": ("int64", (1, 8, 12, 4)),
        "labels_scale3": ("int64", (1, 16, 24, 8)),
        "dropped": ("int64", (1, 3)),
    }
    tables = plain("tables").table_shapes()
    assert tables["level0_slots"] == ("int64", (1, 4, 192)) and tables["level1_ref_uv"] == ("float32", (1, 4, 48, 2))
    assert tables["level0_back"] == ("int64", (1, 3, 384)) and tables["level2_weight"] == ("float32", (1, 6))


@pytest.mark.parametrize(
    ("outputs", "config", "name", "kind"),
    [
        (Outputs("logits", (3,)), 0, "logits_scale3", ("float32", (1, 17, 16, 24, 8))),
        (Outputs("probabilities", (3,)), 0, "probabilities_scale3", ("float32", (1, 17, 16, 24, 8))),
        (Outputs("labels", (3,), "int32"), 0, "labels_scale3", ("int32", (1, 16, 24, 8))),
        (Outputs("logits", (3,)), 2, "logits_scale3", ("float32", (1, 1, 200, 200, 16))),
        (Outputs("probabilities", (3,)), 2, "probabilities_scale3", ("float32", (1, 200, 200, 16))),
    ],
)
def test_shapes_of_outputs(outputs, config, name, kind):
    spec = replace(plain("fixed"), config=CONFIGS[config], outputs=outputs)
    assert spec.output_shapes() == {name: kind}


def test_renamed():
    spec = replace(plain(), renames=(("img", "images"),))
    assert spec.renamed("img") == "images" and spec.renamed("lidar2img") == "lidar2img"


def test_renames_are_of_what_is_there():
    check_renames(replace(plain(), renames=(("img", "a"), ("dropped", "b"))))
    check_renames(replace(plain("tables"), renames=(("lidar2img", "a"), ("dropped", "b"), ("level2_back", "c"))))
    wrong = [("fixed", (("lidar2img", "a"),)), ("runtime", (("level0_slots", "a"),)), ("runtime", (("img", "a"), ("img", "b")))]
    for calibration, renames in wrong:
        with pytest.raises(ExportError, match="--rename"):
            check_renames(replace(plain(calibration), renames=renames))


def test_guesses_that_were_decided_are_none_any_more():
    dl, config = dialects.load("dl"), read_config(TINY)

    def open_ones(request: Request) -> list[str]:
        return [guess.what for guess in open_guesses(dl, request, request.opset or 11)]

    assert open_ones(Request(config)) == [guess.what for guess in dl.guesses]
    assert not any("opset 11" in what for what in open_ones(Request(config, opset=17, functions=True)))
    (half,) = [what for what in open_ones(Request(config, opset=17)) if "opset 11" in what]
    assert half.endswith("no functions in the file, but for what --opset says")
    named = open_ones(Request(config, settings=Settings(op_names=(("dcn", "a::b"),), im2col_step=8)))
    assert not any("name of the deformable" in what or "im2col_step" in what for what in named) and len(named) == len(dl.guesses) - 2
    assert len(open_ones(Request(config, settings=Settings(op_names=(("msda", "a::b"),))))) == len(dl.guesses)
