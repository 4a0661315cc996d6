"""The conformance kit: golden values, edge cases and tolerances of the two custom operators, and the grading of a kernel against them."""
