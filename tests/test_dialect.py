"""Dialect files: what `dl` says, every refusal of the loader, and the user's settings."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace

import pytest

from occport.errors import ExportError
from occport.graph import dialect
from occport.graph.contract import Attribute, Port
from occport.graph.dialect import FOLDER
from occport.graph.settings import Settings, with_settings

MINIMAL = {
    "name": "x", "title": "X", "checked_against": "nothing", "opset": 13, "functions": False,
    "msda": {
        "domain": "X", "version": 2, "op_type": "Attend",
        "inputs": [
            {"name": "value", "form": "value", "dtype": "float32", "rank": 4},
            {"name": "reference", "form": "reference_points", "dtype": "float32", "rank": 4},
            {"name": "offsets", "form": "sampling_offsets_merged", "dtype": "float32", "rank": 4},
            {"name": "logits", "form": "attention_logits", "dtype": "float32", "rank": 5},
            {"name": "maps", "form": "spatial_shapes", "dtype": "int64", "rank": 2},
        ],
        "output": {"form": "heads_merged", "dtype": "float32", "rank": 3},
    },
    "dcn": {
        "domain": "X", "version": 2, "op_type": "Convolve",
        "inputs": [
            {"name": "input", "form": "input", "dtype": "float32", "rank": 4},
            {"name": "packed", "form": "offset_all", "dtype": "float32", "rank": 4},
            {"name": "weight", "form": "weight", "dtype": "float32", "rank": 4},
        ],
        "output": {"form": "map", "dtype": "float32", "rank": 4}, "attributes": [{"name": "stride", "type": "ints", "form": "stride"}],
    },
}  # fmt: skip


def toml(value) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def changed(tree, path, value):
    """A copy of nested dicts and lists with one place changed, or removed where the value is None."""
    if not path:
        return value
    key, *rest = path
    if isinstance(tree, list):
        return [changed(each, rest, value) if i == key else each for i, each in enumerate(tree)]
    made = {**tree, key: changed(tree.get(key), rest, value)}
    return {name: each for name, each in made.items() if each is not None}


def read(folder, tree):
    path = folder / "x.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in tree.items()), encoding="utf-8")
    return dialect.read(path)


def test_the_dialects():
    assert dialect.names() == [
        "ascend", "autoware", "bevformer_tensorrt", "bevformer_tensorrt_trt2", "dl", "far3d_trt", "mmcv", "mmdeploy", "standard",
        "tensorrt", "vad_trt",
    ]  # fmt: skip


# domain::NAME of both operators, as `operators.md` of the shared notes gives them; the output's form; what holds the positions
CONTRACTS = {
    "ascend": ("npu::MultiScaleDeformableAttn", "npu::NPUDeformableConv2d", "heads_merged", "sampling_locations"),
    "autoware": ("MultiScaleDeformableAttentionPlugin", "ModulatedDeformConv2d", "heads_merged", "sampling_locations"),
    "bevformer_tensorrt": ("MultiScaleDeformableAttnTRT", "ModulatedDeformableConv2dTRT", "heads_split", "sampling_offsets_merged"),
    "bevformer_tensorrt_trt2": ("MultiScaleDeformableAttnTRT2", "ModulatedDeformableConv2dTRT2", "heads_split", "sampling_offsets_merged"),
    "dl": ("DL::MultiScaleDeformableAttnFunction", "DL::ModulatedDeformConv2d", "heads_merged", "sampling_locations"),
    "far3d_trt": ("trt::MultiscaleDeformableAttnPlugin_TRT", "trt::ModulatedDeformConv2d", "heads_split", "sampling_locations"),
    "mmcv": ("mmcv::MMCVMultiScaleDeformableAttention", "mmcv::MMCVModulatedDeformConv2d", "heads_merged", "sampling_locations"),
    "mmdeploy": (
        "mmdeploy::MMCVMultiScaleDeformableAttention", "mmdeploy::MMCVModulatedDeformConv2d", "heads_merged", "sampling_locations",
    ),
    "tensorrt": ("MultiscaleDeformableAttnPlugin_TRT", "ModulatedDeformConv2d", "heads_split", "sampling_locations"),
    "vad_trt": (
        "custom_op::MultiScaleDeformableAttentionPlugin", "custom_op::ModulatedDeformConv2d", "heads_merged", "sampling_locations",
    ),
}  # fmt: skip
ATTRIBUTES = {
    "ascend": ["kernel_sizes", "strides", "paddings", "dilations", "groups", "deformable_groups", "modulated"],
    "tensorrt": ["stride", "padding", "dilation", "group", "deformable_group"],
    "mmcv": ["deform_groups", "dilation", "groups", "padding", "stride"],
}
OF_TENSORRT = ("autoware", "far3d_trt", "tensorrt", "vad_trt")


@pytest.mark.parametrize("name", CONTRACTS)
def test_each_contract_is_the_one_of_the_notes(name):
    made = dialect.load(name)
    msda, dcn, output, positions = CONTRACTS[name]
    assert (made.msda.title, made.dcn.title, made.msda.output.form) == (msda, dcn, output)
    assert positions in [port.form for port in made.msda.inputs]
    attributes = ATTRIBUTES.get("tensorrt" if name in OF_TENSORRT else name, ATTRIBUTES["mmcv"])
    assert [attribute.name for attribute in made.dcn.attributes] == attributes
    steps = {attribute.name: attribute.default for attribute in made.msda.attributes}
    assert steps == ({"im2col_step": 64} if name in ("dl", "mmcv", "mmdeploy") else {})
    assert made.in_empty_domain == ("::" not in msda or "::" not in dcn)


def test_ascend_packs_offsets_and_mask():
    ports = dialect.load("ascend").dcn.inputs
    assert [(port.name, port.form, port.optional) for port in ports] == [
        ("input", "input", False), ("weight", "weight", False), ("offset", "offset_all", False), ("bias", "bias", False),
    ]  # fmt: skip


def test_limits_say_what_holds():
    limit = dialect.load("ascend").msda.limits[0]
    assert (limit.size, limit.describe()) == ("head_width", "a multiple of 8 and at most 256")
    assert [limit.holds(size) for size in (8, 256, 12, 264)] == [True, True, False, False]
    assert [limit.dtype for limit in dialect.load("bevformer_tensorrt").msda.limits] == ["int8"]


@pytest.mark.parametrize("name", dialect.names())
def test_a_table_says_all(name):
    made = dialect.load(name)
    assert dialect.from_table(json.loads(json.dumps(dialect.to_table(made))), "here") == made


def test_a_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "dl"\nopset = 13\n[msda]\ndomain = "CHIP"\n[export]\nimg_rank = 4\n', encoding="utf-8")
    made, dl = dialect.load(str(path)), dialect.load("dl")
    assert dialect.default() == dl
    changes = {"msda": replace(dl.msda, domain="CHIP"), "export": replace(dl.export, img_rank=4)}
    assert made == replace(dl, name="mine", default=False, opset=13, **changes)
    path.write_text('base = "dll"\n', encoding="utf-8")
    with pytest.raises(ExportError, match=r"mine\.toml: base: expected one of ascend, .*, got 'dll'$"):
        dialect.load(str(path))


def test_dl_says_what_the_bring_up_document_and_the_best_guesses_say():
    dl = dialect.load("dl")
    assert (dl.name, dl.opset, dl.functions) == ("dl", 11, False)
    assert dl.domains == {"DL": 1}
    assert (dl.msda.domain, dl.msda.version, dl.msda.op_type, dl.msda.num_embed) == ("DL", 1, "MultiScaleDeformableAttnFunction", "all")
    assert [(port.name, port.form, port.dtype, port.rank, port.place) for port in dl.msda.inputs] == [
        ("value", "value", "float32", 4, "value"),
        ("spatial_shapes", "spatial_shapes", "int64", 2, "constant"),
        ("level_start_index", "level_start_index", "int64", 1, "constant"),
        ("sampling_locations", "sampling_locations", "float32", 6, "value"),
        ("attention_weights", "attention_weights", "float32", 5, "value"),
        ("bs", "num_images", "int64", 0, "constant"),
        ("num_queries", "num_queries", "int64", 0, "constant"),
        ("num_embed", "num_embed", "int64", 0, "constant"),
    ]
    assert dl.msda.attributes == (Attribute("im2col_step", "int", "", 64),)
    assert dl.msda.output == Port("heads_merged", "float32", 3)
    assert (dl.dcn.domain, dl.dcn.version, dl.dcn.op_type, dl.dcn.bias) == ("DL", 1, "ModulatedDeformConv2d", "batchnorm")
    assert [(port.name, port.dtype, port.rank, port.optional) for port in dl.dcn.inputs] == [
        ("input", "float32", 4, False), ("offset", "float32", 4, False), ("mask", "float32", 4, False), ("weight", "float32", 4, False),
        ("bias", "float32", 1, True),
    ]  # fmt: skip
    assert [(each.name, each.type, each.form) for each in dl.dcn.attributes] == [
        ("deform_groups", "int", "deform_groups"), ("dilation", "ints", "dilation"), ("groups", "int", "groups"),
        ("padding", "ints", "padding"), ("stride", "ints", "stride"),
    ]  # fmt: skip
    assert dl.dcn.output == Port("map", "float32", 4)


def test_every_guess_names_a_flag():
    guesses = dialect.load("dl").guesses
    assert len(guesses) == 8
    assert all(guess.flag.startswith("--") and guess.what for guess in guesses)
    told = " ".join(guess.flag for guess in guesses)
    settings = ("op-name", "scalar-rank", "scalar-dtype", "scalar-place", "num-embed", "shapes-dtype", "im2col-step", "dcn-bias")
    assert [name for name in settings if f"--{name}" not in told] == []


def test_standard_has_no_custom_node():
    standard = dialect.load("standard")
    assert (standard.msda, standard.dcn, standard.domains, standard.functions, standard.guesses) == (None, None, {}, False, ())


@pytest.mark.parametrize("name", dialect.names())
def test_every_file_says_what_it_was_checked_against(name):
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert table["name"] == name and table["checked_against"]


def test_a_file_of_the_users_own(tmp_path):
    made = read(tmp_path, MINIMAL)
    assert (made.name, made.opset, made.functions, made.guesses, made.domains) == ("x", 13, False, (), {"X": 2})
    assert made.msda.inputs[1] == Port("reference_points", "float32", 4, "reference")
    assert made.dcn.attributes == (Attribute("stride", "ints", "stride"),)


def test_an_unknown_name():
    with pytest.raises(ExportError, match=r"^dialect 'tensorrt9': expected one of ascend, .*, or a \.toml file; choose with --dialect$"):
        dialect.load("tensorrt9")


WRONG = {
    "unknown key": (("opsett",), 11, r": opsett: expected one of name, title, .*guesses, base, got an unknown key"),
    "unknown key of a contract": (("msda", "domian"), "X", r": msda\.domian: expected one of domain, version, .*, got an unknown key"),
    "unknown key of a port": (("msda", "inputs", 1, "typ"), "a", r": msda\.inputs\[1\]\.typ: expected one of form, .*, got an unknown key"),
    "unknown key of an output": (("dcn", "output", "typ"), "a", r": dcn\.output\.typ: expected one of form, .*, got an unknown key"),
    "text for a number": (("opset",), "11", r": opset: expected int, got '11'"),
    "number for a text": (("title",), 3, r": title: expected str, got 3"),
    "truth for a number": (("msda", "version"), True, r": msda\.version: expected int, got True"),
    "number for truth": (("functions",), 0, r": functions: expected bool, got 0"),
    "fraction": (("msda", "inputs", 0, "rank"), 4.5, r": msda\.inputs\[0\]\.rank: expected int, got 4\.5"),
    "text for a table": (("msda",), "x", r": msda: expected a table, got 'x'"),
    "table for a list": (("msda", "inputs"), {"a": 1}, r": msda\.inputs: expected a list of tables, got \{'a': 1\}"),
    "text in a list": (("dcn", "attributes"), ["stride"], r": dcn\.attributes\[0\]: expected a table, got 'stride'"),
    "unknown form": (("msda", "inputs", 0, "form"), "valu", r": msda\.inputs\[0\]\.form: expected one of 'value', .*, got 'valu'"),
    "form of the other operator": (("msda", "inputs", 0, "form"), "mask", r": msda\.inputs\[0\]\.form: expected a form of msda's .*'mask'"),
    "form of an output": (("dcn", "inputs", 0, "form"), "value", r": dcn\.inputs\[0\]\.form: expected a form of dcn's inputs, got 'value'"),
    "unknown dtype": (("msda", "inputs", 0, "dtype"), "float", r"\.dtype: expected one of 'float32', .*, 'int32', got 'float'"),
    "unknown place": (("msda", "inputs", 0, "place"), "node", r"\.place: expected one of 'value', 'constant', 'initializer', got 'node'"),
    "unknown type": (("dcn", "attributes", 0, "type"), "floats", r"dcn\.attributes\[0\]\.type: expected one of 'int', .*, got 'floats'"),
    "unknown attribute form": (("dcn", "attributes", 0, "form"), "strides", r"\.form: expected one of '', 'stride', .*, got 'strides'"),
    "unknown bias": (("dcn", "bias"), "yes", r": dcn\.bias: expected one of 'batchnorm', 'add', 'input', got 'yes'"),
    "unknown num_embed": (("msda", "num_embed"), "M", r": msda\.num_embed: expected one of 'all', 'head', got 'M'"),
    "missing field": (("title",), None, r"x\.toml: expected every field of its kind, got missing 1 required positional argument: 'title'"),
    "missing field of a port": (("msda", "inputs", 1, "rank"), None, r": msda\.inputs\[1\]: expected every field .* argument: 'rank'"),
    "odd name": (("name",), "a/b", r"x\.toml: name: expected letters, digits, _ \. or -, got 'a/b'"),
    "wrong rank": (("msda", "inputs", 0, "rank"), 3, r": msda\.inputs\[0\]\.rank: expected the rank of \(A, S, M, D\), got 3"),
    "form twice": (("msda", "inputs", 1, "form"), "value", r": msda\.inputs: expected every form once, got 'value' twice"),
    "name twice": (("msda", "inputs", 1, "name"), "value", r": msda\.inputs: expected every name once, got 'value' twice"),
    "no weights": (("msda", "inputs", 3, "form"), "num_embed", r": msda\.inputs: expected ports from which attention_w.* got none"),
    "no mask": (("dcn", "inputs", 1, "form"), "offset", r": dcn\.inputs: expected ports from which mask follows, got none"),
    "output of the other": (("dcn", "output", "form"), "heads_split", r": dcn\.output\.form: expected one of map, got 'heads_split'"),
    "no operator name": (("dcn", "op_type"), "", r": dcn\.op_type: expected the operator's name, got an empty one"),
    "one name for both": (("dcn", "op_type"), "Attend", r"x\.toml: expected two different names outside .*, got msda=X::Attend"),
    "type of a form": (("dcn", "attributes", 0, "type"), "int", r": dcn: attribute stride: expected ints for 'stride', of dcn, got int"),
    "neither form nor default": (("dcn", "attributes", 0, "form"), None, r": dcn: attribute stride: expected a form, or a default"),
    "names as one text": (("dcn", "other_names"), "Conv", r": dcn\.other_names: expected a list of names, got 'Conv'"),
    "limit of nothing": (("dcn", "limits"), [{"size": "points"}], r": dcn\.limits\[0\]\.size: expected one of images, .*, got 'points'"),
    "unknown default": (("export",), {"img_rank": 3}, r": export\.img_rank: expected one of 4, 5, got 3"),
    "attention alone": (("dcn",), None, r"x\.toml: expected msda and dcn, or neither, got msda alone"),
    "convolution alone": (("msda",), None, r"x\.toml: expected msda and dcn, or neither, got dcn alone"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_loader_refuses(case, tmp_path):
    path, value, message = WRONG[case]
    with pytest.raises(ExportError, match=message) as caught:
        read(tmp_path, changed(MINIMAL, list(path), value))
    assert str(caught.value).startswith(str(tmp_path / "x.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [(b"name = ", "a TOML file, got Invalid value"), (b"\xff\xfe", "got 'utf-8' codec")])
def test_what_is_no_toml(content, message, tmp_path):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=rf"^dialect file {re.escape(str(path))}: .*{message}"):
        dialect.read(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ExportError, match=r"none\.toml: expected a TOML file, got No such file or directory; `occport dialects` lists"):
        dialect.read(tmp_path / "none.toml")


def test_no_settings_change_nothing():
    for name in dialect.names():
        assert with_settings(dialect.load(name), Settings()) == dialect.load(name)


def test_each_setting_changes_its_field_alone():
    dl = dialect.load("dl")

    def ports(settings):
        return [(port.dtype, port.rank, port.place) for port in with_settings(dl, settings).msda.inputs]

    plain = ports(Settings())
    assert ports(Settings(scalar_rank=1)) == [*plain[:5], *[("int64", 1, "constant")] * 3]
    assert ports(Settings(scalar_dtype="int32")) == [*plain[:5], *[("int32", 0, "constant")] * 3]
    assert ports(Settings(scalar_place="initializer")) == [*plain[:5], *[("int64", 0, "initializer")] * 3]
    assert ports(Settings(shapes_dtype="int32")) == [plain[0], ("int32", 2, "constant"), ("int32", 1, "constant"), *plain[3:]]
    assert with_settings(dl, Settings(num_embed="head")).msda.num_embed == "head"
    assert with_settings(dl, Settings(im2col_step=32)).msda.attributes == (Attribute("im2col_step", "int", "", 32),)
    for bias in ("batchnorm", "add", "input"):
        assert with_settings(dl, Settings(dcn_bias=bias)).dcn.bias == bias
    made = with_settings(dl, Settings(op_names=(("dcn", "mmcv::MMCVModulatedDeformConv2d"),)))
    assert (made.dcn.domain, made.dcn.op_type) == ("mmcv", "MMCVModulatedDeformConv2d")
    assert (made.msda, made.domains) == (dl.msda, {"DL": 1, "mmcv": 1})


def test_settings_of_a_dialect_without_custom_nodes():
    message = r"^dialect standard: expected no operator settings, as it has no custom nodes; choose another dialect, or leave them out$"
    with pytest.raises(ExportError, match=message):
        with_settings(dialect.load("standard"), Settings(im2col_step=64))


@pytest.mark.parametrize(("operator", "name"), [("dcn", "Conv"), ("dcn", "DL::"), ("msda", ""), ("conv", "DL::Conv")])
def test_malformed_operator_names(operator, name):
    with pytest.raises(ExportError) as caught:
        with_settings(dialect.load("dl"), Settings(op_names=((operator, name),)))
    assert str(caught.value) == f"--op-name: expected dcn=DOMAIN::NAME or msda=DOMAIN::NAME, got {operator}={name}"


@pytest.mark.parametrize(("operator", "name"), [("dcn", "ai.onnx::DeformConv"), ("dcn", "DL::MultiScaleDeformableAttnFunction")])
def test_operator_names_that_are_taken(operator, name):
    with pytest.raises(ExportError, match=f"^--op-name: expected two different names outside ONNX's own domain, got msda=.*, dcn={name}$"):
        with_settings(dialect.load("dl"), Settings(op_names=((operator, name),)))


def test_an_empty_domain_is_asked_for_with_nothing_before_the_colons():
    made = with_settings(dialect.load("dl"), Settings(op_names=(("msda", "::Attend"),)))
    assert made.msda.title == "Attend" and made.in_empty_domain
    with pytest.raises(ExportError, match=r"^--op-name: expected in the empty domain a name .*, got DeformConv$"):
        with_settings(dialect.load("dl"), Settings(op_names=(("dcn", "::DeformConv"),)))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (Settings(scalar_rank=1), "--scalar-rank"), (Settings(scalar_dtype="int32"), "--scalar-dtype"),
        (Settings(scalar_place="constant"), "--scalar-place"), (Settings(num_embed="all"), "--num-embed"),
        (Settings(im2col_step=1), "--im2col-step"),
    ],
)  # fmt: skip
def test_settings_without_a_place(settings, flag, tmp_path):
    with pytest.raises(ExportError, match=rf"^{flag}: expected a dialect whose attention node has one, got dialect x; leave {flag} out$"):
        with_settings(read(tmp_path, MINIMAL), settings)
