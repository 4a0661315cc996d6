"""Solving the letters of shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occport.graph.forms import PORT_FORMS
from occport.graph.sizes import SIZES, solve, value_of

ATTENTION = ("value", "sampling_offsets_merged", "attention_logits_merged", "reference_points_shared", "spatial_shapes")
LETTERS = st.fixed_dictionaries({letter: st.integers(1, 9) for letter in ["A", "S", "M", "D", "Q", "L", "P"]})
CONV = st.fixed_dictionaries({letter: st.integers(1, 9) for letter in ("A", "C", "H", "W", "G", "T", "Ho", "Wo", "kh", "kw", "groups")})


def shape(form: str, letters: dict[str, int]) -> tuple[int, ...]:
    """The form's shape in numbers."""
    return tuple(value_of(term, letters) for term in PORT_FORMS[form].shape.split())


@given(LETTERS)
def test_merged_axes_are_solved_one_after_the_other(letters):
    letters |= {"R": 1}
    found, conflicts = solve([(PORT_FORMS[form].shape, shape(form, letters)) for form in ATTENTION], {})
    assert conflicts == [] and {letter: found[letter] for letter in letters} == letters


@given(CONV)
def test_a_convolution(letters):
    letters |= {"C": letters["C"] * letters["groups"], "O": 4}
    shapes = [(PORT_FORMS[form].shape, shape(form, letters)) for form in ("offset_all", "weight", "input")]
    known = {"groups": letters["groups"], "T": letters["T"]}
    found, conflicts = solve(shapes, known)
    assert conflicts == [] and {letter: found[letter] for letter in letters} == letters


def test_contradictions_are_told():
    found, conflicts = solve([("A Q", (2, 3)), ("Q A", (4, 2))], {})
    assert found == {"A": 2, "Q": 3} and conflicts == ["Q = 3 elsewhere, 4 here"]
    assert solve([("L*P*2", (6,)), ("L", (2,))], {})[1] == ["L*P*2 = 6, which cannot be"]
    assert solve([("L 2", (5, 3))], {})[1] == ["2 = 2 elsewhere, 3 here"]


def test_what_cannot_be_known_stays_open():
    assert solve([("L*P", (6,))], {}) == ({}, [])


def test_values():
    assert value_of("M*D", {"M": 3, "D": 4}) == 12 and value_of("C/groups", {"C": 8, "groups": 2}) == 4
    assert value_of("M*D", {"M": 3}) is None and value_of("2", {}) == 2


@pytest.mark.parametrize("operator", SIZES)
def test_every_size_is_made_of_letters_that_ports_have(operator):
    terms = [form.shape for form in PORT_FORMS.values() if form.operator == operator]
    letters = {part for text in terms for term in text.split() for part in term.replace("/", "*").split("*")}
    for size, term in SIZES[operator].items():
        assert set(term.replace("/", "*").split("*")) <= letters | {"groups", "unevenness"}, size
