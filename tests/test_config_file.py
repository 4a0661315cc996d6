"""Config files: reading without executing, inheritance as mmcv's, overrides, and every line a user can meet."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.config.file import apply_overrides, parse_override, read_config_file
from occport.config.kinds import shown
from occport.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "code",
    [
        "open({path!r}, 'w')",
        "a = open({path!r}, 'w')",
        "import pathlib\npathlib.Path({path!r}).touch()",
        "a = [__import__('pathlib').Path({path!r}).touch() for _ in [1]]",
        "exec('open({path!r}, \"w\")')",
        "a = eval(\"open({path!r}, 'w')\")",
        "a = dict(b=open({path!r}, 'w'))",
        "a = f\"{{open({path!r}, 'w')}}\"",
        "a = (lambda: open({path!r}, 'w'))()",
        "@open\nclass A:\n    open({path!r}, 'w')",
        "def f(a=open({path!r}, 'w')): pass",
        "_base_ = open({path!r}, 'w')",
    ],
)
def test_code_never_runs(tmp_path, code):
    target = tmp_path / "made"
    with pytest.raises(ConfigError, match=r"never executed|not valid Python"):
        read_config_file(write(tmp_path, "evil.py", code.format(path=str(target))))
    assert not target.exists()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=80))
def test_any_bytes_parse_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "c.py"
    path.write_bytes(data)
    try:
        read_config_file(path)
    except ConfigError as error:
        assert str(path) in str(error)


def test_files_that_cannot_be_read(tmp_path):
    def line(path):
        with pytest.raises(ConfigError) as caught:
            read_config_file(path)
        return str(caught.value).replace(str(tmp_path), "HERE")

    write(tmp_path, "surroundocc.py", "a = 1")
    assert line(tmp_path / "surroundoc.py") == (
        "config HERE/surroundoc.py: expected a file, got nothing there; did you mean HERE/surroundocc.py?"
    )
    assert line(tmp_path / "no" / "x.py") == "config HERE/no/x.py: expected a file, got nothing there; check the path"
    assert line(tmp_path) == "config HERE: expected a file, got a folder; name a config inside it"
    assert line(tmp_path / "x.yaml") == "config HERE/x.yaml: expected a Python config (.py), got .yaml"
    assert line(Path("a\0b")).startswith("config a\0b: expected a file")
    (tmp_path / "latin.py").write_bytes("a = 'é'".encode("latin-1"))
    assert line(tmp_path / "latin.py") == "config HERE/latin.py: expected UTF-8 text, got byte 0xe9 at offset 5"
    (tmp_path / "large.py").write_bytes(b"#" * 4_000_001)
    assert line(tmp_path / "large.py") == "config HERE/large.py: expected a config of at most 1,000,000 characters, got 4,000,001 bytes"
    os.mkfifo(tmp_path / "pipe.py")
    assert line(tmp_path / "pipe.py") == "config HERE/pipe.py: expected a file, got a device, pipe or socket"
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    assert "config HERE/loop.py: expected" in line(tmp_path / "loop.py")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    path = write(tmp_path, "c.py", "a = 1")
    path.chmod(0)
    with pytest.raises(ConfigError, match="expected a readable file, got Permission denied"):
        read_config_file(path)


def test_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "c.py"
    path.write_bytes("\ufeffa = 1\r\nb = [\r\n2]\r\n".encode())
    assert read_config_file(path) == {"a": 1, "b": [2]}


def test_bases_are_merged_as_in_mmcv(tmp_path):
    write(tmp_path, "data/one.py", "a = dict(x=1, y=dict(z=2, w=3), l=[1, 2])\nname = 'one'\nonly = 5")
    write(tmp_path, "data/two.py", "b = dict(q=1)\nreplaced = dict(old=1, deep=dict(older=2))")
    child = write(tmp_path, "child/c.py", """
_base_ = ['../data/one.py', '../data/two.py']
a = dict(y=dict(z=20), l=[3], n=dict(_delete_=True, m=1))
name = 'child'
replaced = dict(_delete_=True, new=2, deep=dict(newer=3))
fresh = dict(k=1)
""")
    assert read_config_file(child) == {
        "a": {"x": 1, "y": {"z": 20, "w": 3}, "l": [3], "n": {"m": 1}}, "name": "child", "only": 5, "b": {"q": 1},
        "replaced": {"new": 2, "deep": {"newer": 3}}, "fresh": {"k": 1},
    }
    grandchild = write(tmp_path, "g.py", "_base_ = 'child/c.py'\na = dict(x=7)")
    assert read_config_file(grandchild)["a"] == {"x": 7, "y": {"z": 20, "w": 3}, "l": [3], "n": {"m": 1}}


def test_bases_that_cannot_be(tmp_path):
    def line(text):
        with pytest.raises(ConfigError) as caught:
            read_config_file(write(tmp_path, "c.py", text))
        return str(caught.value).replace(str(tmp_path), "HERE")

    write(tmp_path, "one.py", "a = 1\nb = dict(c=[1])")
    write(tmp_path, "two.py", "a = 2")
    write(tmp_path, "back.py", "_base_ = 'c.py'")
    write(tmp_path, "bad.py", "x = 1\nimport os")
    assert line("_base_ = ['one.py', 'two.py']") == "HERE/c.py: _base_: expected bases that share no key, got a in two of them"
    assert line("_base_ = 'zzzzz.py'") == "base HERE/zzzzz.py of HERE/c.py: expected a file, got nothing there; check the path"
    assert line("_base_ = 'c.py'") == (
        "base HERE/c.py of HERE/c.py: expected bases that end, got a file that is, by way of its bases, its own base"
    )
    assert "base HERE/c.py of HERE/back.py: expected bases that end" in line("_base_ = 'back.py'")
    assert line("_base_ = 5") == "HERE/c.py: _base_: expected a file name or a list of file names, got 5"
    assert line("_base_ = ['one.py', None]") == "HERE/c.py: _base_: expected a file name or a list of file names, got ['one.py', None]"
    assert line("_base_ = 'bad.py'").startswith("HERE/bad.py:2: an import")
    assert line("_base_ = 'one.py'\na = dict(x=1)") == (
        "HERE/c.py: a: expected 1 of the base to be replaced by a value of its kind, got a dict, which can only be merged into a dict; "
        "put _delete_=True into it to replace the base's value"
    )
    assert "HERE/c.py: b: c: expected [1] of the base" in line("_base_ = 'one.py'\nb = dict(c=dict(d=1))")
    assert line("_base_ = 'one.py'\nx = a") == "HERE/c.py:2: unknown name a; only names bound above in the same file can be used"
    for i in range(12):
        write(tmp_path, f"chain{i}.py", f"_base_ = 'chain{i + 1}.py'")
    assert "expected at most 10 bases of bases" in line("_base_ = 'chain0.py'")


CONFIG = {"a": {"b": [{"c": 1}, {"c": 2}], "t": (1, 2)}, "n": None, "x": 3}


def test_overrides_replace_in_a_copy():
    before = json.dumps(CONFIG)
    result = apply_overrides(CONFIG, {"a.b.1.c": 20, "a.t.0": 9, "x": "new", "n": [1]})
    assert result == {"a": {"b": [{"c": 1}, {"c": 20}], "t": (9, 2)}, "n": [1], "x": "new"}
    assert json.dumps(CONFIG) == before
    assert apply_overrides(CONFIG, {}) == CONFIG


def test_overrides_of_dicts_merge_as_in_mmcv():
    assert apply_overrides({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}
    assert apply_overrides({"a": {"b": 1, "c": 2}}, {"a": {"_delete_": True, "c": 3}}) == {"a": {"c": 3}}
    assert apply_overrides({"a": 1}, {"a": {"c": 3}}) == {"a": {"c": 3}}


def test_known_keys_may_be_absent():
    assert apply_overrides(CONFIG, {"a.new": 1, "fresh.deep.er": 2, "n.x": 3}, known={"a.new", "fresh.deep.er", "n.x"}) == {
        **CONFIG, "a": {**CONFIG["a"], "new": 1}, "fresh": {"deep": {"er": 2}}, "n": {"x": 3},
    }


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("a.bb", "override 'a.bb': expected a key that the config has, got an unknown one; did you mean a.b"),
        ("a.b.2.c", "override 'a.b.2.c': expected a key that the config has, got an unknown one; did you mean"),
        ("a.b.-1.c", "override 'a.b.-1.c': expected a key that the config has"),
        ("a.b.01.c", "override 'a.b.01.c': expected a key that the config has"),
        ("zebra", "override 'zebra': expected a key that the config has, got an unknown one; keys are dotted, as model.img_backbone.depth"),
        ("", "override '': expected a key that the config has, got an unknown one; keys are dotted"),
        ("q" * 5000, "override 'qqqqqqq"),
    ],
    ids=lambda text: text[:20],
)
def test_unknown_override(key, line):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(CONFIG, {key: 1}, known={"known.key"})
    assert str(caught.value).startswith(line)
    assert len(str(caught.value)) < 400


def test_override_below_a_plain_value():
    with pytest.raises(ConfigError, match=r"override x\.y: expected a dict that holds y, got 3 in its place"):
        apply_overrides(CONFIG, {"x.y": 1}, known={"x.y"})


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=1", "a", 1),
        (" a.b = -1.5 ", "a.b", -1.5),
        ("volume_h=[20,10,5]", "volume_h", [20, 10, 5]),
        ("volume_h=20,10,5", "volume_h", [20, 10, 5]),
        ("volume_h=20, 10 ,5", "volume_h", [20, 10, 5]),
        ("volume_h=(20,10,5)", "volume_h", [20, 10, 5]),
        ("x=True", "x", True),
        ("x=true", "x", True),
        ("x=false", "x", False),
        ("x=null", "x", None),
        ("x=None", "x", None),
        ("x=True,false,0", "x", [True, False, 0]),
        ("x=car,truck", "x", ["car", "truck"]),
        ("x=caffe", "x", "caffe"),
        ("x='caffe'", "x", "caffe"),
        ("x=\"a=b\"", "x", "a=b"),
        ("x=a=b", "x", "a=b"),
        ("x=fine-tuned", "x", "fine-tuned"),
        ("x=1-2", "x", "1-2"),
        ("x=/data/a b", "x", "/data/a b"),
        ("x={'a': 1}", "x", {"a": 1}),
        ('x={"a": true}', "x", {"a": True}),
        ("x=NaN", "x", "NaN"),
        ("x=Infinity", "x", "Infinity"),
        ("x=1e999", "x", "1e999"),
        ("x=9" + "9" * 30, "x", "9" + "9" * 30),
        ("x=1j", "x", "1j"),
        ("x=b'a'", "x", "b'a'"),
        ("x=__import__", "x", "__import__"),
    ],
)
def test_override_of_the_command_line(text, key, value):
    parsed = parse_override(text)
    assert parsed == (key, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("text", ["", "a", "=1", "a=", "a= ", "a..b=1", ".a=1", "a.=1", "a b=1", "=", "a.\tb=2"])
def test_malformed_override(text):
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value) == f"override {shown(text)}: expected KEY=VALUE with a dotted key, as model.img_backbone.depth=50"


@pytest.mark.parametrize(
    "value", ["[1,2", "[a,b]", "{1", "(", "'x", '"x', "{1,2}", "[NaN]", "[1e999]", "[" * 5000, "[open('x')]", "[0x" + "f" * 9000 + "]"],
    ids=lambda value: value[:20],
)
def test_unclosed_value(value):
    with pytest.raises(ConfigError) as caught:
        parse_override(f"a={value}")
    hint = "close brackets and quotes, and quote strings"
    assert str(caught.value) == f"override a: expected a Python or JSON literal, got {shown(value)}; {hint}"


def test_override_of_endless_size():
    with pytest.raises(ConfigError, match="override a: expected a value of at most 1,000,000 characters"):
        parse_override("a=" + "1" * 1_000_001)


@settings(deadline=None, max_examples=120)
@given(st.text(max_size=40))
def test_any_override_parses_or_is_refused(text):
    for source in (text, f"a={text}"):
        try:
            key, value = parse_override(source)
        except ConfigError:
            continue
        assert key and (not isinstance(value, float) or math.isfinite(value))


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.integers(-9, 2**62) | st.booleans() | st.none() | st.text(max_size=6), lambda part: st.lists(part, max_size=3)))
def test_json_values_come_back(value):
    assert parse_override(f"a={json.dumps(value, ensure_ascii=False)}") == ("a", value)


def test_shown_is_short_whatever_it_shows():
    circle: list[object] = []
    circle.append(circle)
    assert shown([1, "x"]) == "[1, 'x']"
    assert len(shown("x" * 1000)) == 100 and shown("x" * 1000).endswith(" ...")
    assert shown(circle) == "[[...]]"
    assert shown(16**9000) == "a value of type int"
