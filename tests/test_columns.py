"""Aligned columns."""

from occport.columns import aligned


def test_texts_stand_left_and_numbers_right():
    assert aligned([["name", "n", "why"], ["a", "12", "b"]], (0, -1)) == "name   n  why\na     12  b"
    assert aligned([["a", "b"]]) == "a  b"
    assert aligned(iter([iter(["long", ""]), iter(["x", "1"])])) == "long\nx     1"
