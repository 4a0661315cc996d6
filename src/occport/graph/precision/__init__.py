"""A file's own precision: weights, activations and custom nodes in 16 bits, geometry in 32."""
