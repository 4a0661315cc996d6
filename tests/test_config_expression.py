"""What a config may say: equal to what Python would make of it, bounded, and refused with file and line where it is not data."""

from __future__ import annotations

import runpy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.config.expression import MAX_ITEMS, evaluate_assignments
from occport.errors import ConfigError

NEVER = "expected literals, dict(), list(), tuple(), names bound above and arithmetic; a config is data here, it is never executed"
GROWN = "too much data: expected at most 100,000 values in a config file"


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        evaluate_assignments(text, "c.py")
    line = str(caught.value)
    assert "\n" not in line
    return line


UNDERSTOOD = '''"""A docstring."""
# a comment
a = 1; b = -2.5; c = +3; d = "x" 'y'; e = None; f = True
"another docstring"
g = h = [1, 2, 3]
i = dict(a=1, **dict(b=2), c=dict(d=[4]))
j = {'k': 1, 2: 'two', **i}
k = g[0] + g[-1] * 2 ** 3 // 2 - 7 % 4 + 1.0 / 3
l = g[1:] + [4] + g[::2]
m = (1, 2) + (3,)
n = [0, [1]] * 2 + 2 * [5]
o = '-' * 3 + 'end'
p = i['c']['d'][0]
q = tuple(g); r = list(m); s = list(); t = dict(); u = dict(i, z=1)
v = f"plain"
w = "text"[1:3]
_hidden = 5
__dunder = 6
'''


def test_values_equal_those_of_python(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(UNDERSTOOD)
    executed = {name: value for name, value in runpy.run_path(str(path)).items() if not name.startswith("__")}
    read = evaluate_assignments(UNDERSTOOD, "c.py")
    assert read == executed
    assert list(read) == list(executed)
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in executed.items()}


def test_names_give_copies():
    config = evaluate_assignments("a = [1]\nb = dict(x=a, y=a)\nc = [a] * 2", "c.py")
    config["b"]["x"].append(2)
    config["c"][0].append(3)
    assert config == {"a": [1], "b": {"x": [1, 2], "y": [1]}, "c": [[1, 3], [1]]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os", "c.py:1: an import"),
        ("from os import path", "c.py:1: an import"),
        ("a = 1\n\ndef f():\n    pass", "c.py:3: a function definition"),
        ("async def f(): pass", "c.py:1: a function definition"),
        ("class A: pass", "c.py:1: a class definition"),
        ("if True:\n    a = 1", "c.py:1: an if"),
        ("a = 1 if True else 2", "c.py:1: an if"),
        ("for a in [1]: pass", "c.py:1: a loop"),
        ("while True: pass", "c.py:1: a loop"),
        ("with a: pass", "c.py:1: a with block"),
        ("try:\n    a = 1\nfinally: pass", "c.py:1: a try block"),
        ("a = 1\ndel a", "c.py:2: a del"),
        ("assert True", "c.py:1: an assert"),
        ("raise x", "c.py:1: a raise"),
        ("a = [1]\na += [2]", "c.py:2: an assignment in place"),
        ("a: int = 1", "c.py:1: an annotated assignment"),
        ("a, b = 1, 2", "c.py:1: an assignment to something else than a name"),
        ("a = {}\na['b'] = 1", "c.py:2: an assignment to something else than a name"),
        ("dict = 1", "c.py:1: an assignment to dict"),
        ("a = open('x')", "c.py:1: a call of open"),
        ("a = os.path.join('x')", "c.py:1: a call of os.path.join"),
        ("a = 'x'.join([])", "c.py:1: a call of something.join"),
        ("exec('x')", "c.py:1: a call of exec"),
        ("a = [\n  1,\n  __import__('os'),\n]", "c.py:3: a call of __import__"),
        ("a = ''.__class__", "c.py:1: an attribute (.__class__)"),
        ("a = [x for x in [1]]", "c.py:1: a comprehension"),
        ("a = {x: x for x in [1]}", "c.py:1: a comprehension"),
        ("a = lambda: 1", "c.py:1: a lambda"),
        ("a = f'{1}'", "c.py:1: an f-string with expressions"),
        ("a = 1 < 2", "c.py:1: a comparison"),
        ("a = True and False", "c.py:1: a boolean operator"),
        ("a = not True", "c.py:1: the operator Not"),
        ("a = 1 << 70", "c.py:1: the operator LShift"),
        ("a = {1, 2}", "c.py:1: a set"),
        ("a = [*[1]]", "c.py:1: a starred value"),
        ("a = (b := 1)", "c.py:1: an assignment inside an expression"),
        ("a = b'x'", "c.py:1: a literal of type bytes"),
        ("a = 1j", "c.py:1: a literal of type complex"),
        ("a = ...", "c.py:1: a literal of type ellipsis"),
        ("1 + 1", "c.py:1: an expression whose value goes nowhere"),
        ("a = list(a=1)", "c.py:1: list() with these arguments"),
        ("a = dict({}, {})", "c.py:1: dict() with these arguments"),
    ],
)
def test_code_is_refused_with_its_line(text, found):
    assert refused(text) == f"{found}: {NEVER}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = (", "c.py:2: not valid Python: got '(' was never closed"),
        ("_dim = 1\nb = _dims", "c.py:2: unknown name _dims; did you mean _dim?"),
        ("a = model", "c.py:1: unknown name model; only names bound above in the same file can be used"),
        ("a = [1][3]", "c.py:1: a subscript: got list index out of range"),
        ("a = dict(b=1)['c']", "c.py:1: a subscript: got no key 'c'"),
        ("a = [1]['x']", "c.py:1: a subscript: got list indices must be integers or slices, not str"),
        ("a = [1][::0]", "c.py:1: a subscript: got slice step cannot be zero"),
        ("a = 5[0]", "c.py:1: a subscript: expected a list, tuple, dict or string before it, got a value of type int"),
        ("a = 1 / 0", "c.py:1: arithmetic: got division by zero"),
        ("a = 1e300 ** 9", "c.py:1: arithmetic: got Numerical result out of range"),
        ("a = (-1) ** 0.5", "c.py:1: arithmetic: expected a real number, got a complex one"),
        ("a = [1] + (2,)", "c.py:1: arithmetic: expected numbers, or strings, lists or tuples to join or repeat, "
         "got a value of type list and a value of type tuple"),
        ("a = '%9d' % 3", "c.py:1: arithmetic: expected numbers, or strings, lists or tuples to join or repeat, "
         "got a value of type str and a value of type int"),
        ("a = None + 1", "c.py:1: arithmetic: expected numbers, or strings, lists or tuples to join or repeat, "
         "got None and a value of type int"),
        ("a = -'x'", "c.py:1: a sign: expected a number behind it, got a value of type str"),
        ("a = {(1, 2): 3}", "c.py:1: a dict key: expected a string or a number, got a value of type tuple"),
        ("a = dict(**[1])", "c.py:1: what is unpacked into a dict: expected a dict, got a value of type list"),
        ("a = dict([1])", "c.py:1: what is unpacked into a dict: expected a dict, got a value of type list"),
        ("a = dict(b=1, **dict(b=2))", "c.py:1: in dict(), 'b' is given twice"),
        ("a = dict(b=1, b=2)", "c.py:1: in dict(), 'b' is given twice"),
        ("a = dict(**{1: 2})", "c.py:1: in dict(), 1 is no keyword"),
        ("a = list('abc')", "c.py:1: list(): expected a list or a tuple in it, got a value of type str"),
        ("a = 1\nb = '{{ fileDirname }}/x'", "c.py:2: {{ fileDirname }}; variables in double braces are not supported here, "
         "write the value itself"),
        ("a = {{_base_.model.x}}", "c.py:1: {{_base_.model.x}}; variables in double braces are not supported here, write the value itself"),
    ],
)
def test_errors_name_place_and_cause(text, line):
    assert refused(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 9**9**9", "c.py:1: a number too large: expected whole numbers below 2^63"),
        ("a = 2**62 * 4", "c.py:1: a number too large: expected whole numbers below 2^63"),
        ("a = 0x" + "f" * 9000, "c.py:1: a number too large: expected whole numbers below 2^63"),
        ("a = [0] * 10**15", f"c.py:1: {GROWN}"),
        ("a = 10**15 * 'x'", f"c.py:1: {GROWN}"),
        ("b = [[0] * 999] * 999", f"c.py:1: {GROWN}"),
        ("a = 'abcdefgh'\n" + "a = a + a\n" * 60, f"c.py:18: {GROWN}"),
        ("a = ['x'] * 10\n" + "a = [a, a, a, a, a, a, a, a, a, a]\n" * 9, f"c.py:5: {GROWN}"),
        ("a = 1\n" + "a = [a]\n" * 5000, "c.py:101: nested too deeply: expected at most 100 levels"),
        ("a = " + "-" * 99_999 + "1", "c.py: nested too deeply: expected at most 100 levels"),
        ("a = " + "1+" * 99_999 + "1", "c.py: nested too deeply: expected at most 100 levels"),
        ("a = " + "1+" * 200 + "1", "c.py:1: nested too deeply: expected at most 100 levels"),
        ("#" * 1_000_001, "c.py: expected a config of at most 1,000,000 characters, got 1,000,001"),
    ],
    ids=lambda text: text[:20],
)
def test_nothing_grows_without_end(text, line):
    assert refused(text) == line


def test_an_empty_repetition_is_no_loop():
    assert evaluate_assignments("a = [] * 10**18\nb = [1] * -3\nc = '' * 10**18", "c.py") == {"a": [], "b": [], "c": ""}


WORDS = [
    "a", "b", "_base_", "dict", "list", "(", ")", "[", "]", "{", "}", ",", ":", "=", "**", "*", "+", "-", "/", "%", ".", "1", "9", "0.5",
    "1e999", "'x'", "True", "None", "\n", "\n", " ", "if", "else", "for", "in", "lambda", "f'{a}'", "open", "#", "\\", ";", "@", ":=", "'",
]
SOUP = st.lists(st.sampled_from(WORDS), max_size=25)


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.text(max_size=60), SOUP.map(" ".join), SOUP.map("".join)))
def test_any_text_parses_or_is_refused(text):
    try:
        values = evaluate_assignments(text, "c.py")
    except ConfigError as error:
        assert str(error).startswith("c.py") and "\n" not in str(error)
    else:
        assert all(isinstance(name, str) for name in values)
        assert len(repr(values)) < 40 * MAX_ITEMS


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda part: st.lists(part, max_size=4) | st.lists(part, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=5), part),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80)
@given(DATA)
def test_every_value_survives_its_repr(value):
    text = f"a = {value!r}"
    if "{{" not in text:
        assert evaluate_assignments(text, "c.py") == {"a": value}
