"""Writing conformance vectors: cases from a network's own activations, and made-up edge cases."""
