"""Gradients of an operator by running its reference again: slower than a kernel, but it is the definition itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def recomputed_grads(
    reference: Callable[[Sequence[Tensor]], Tensor], saved: Sequence[Tensor], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of `reference(saved)` for an output gradient.

    Args:
        reference: differentiable; takes tensors as `saved`.
        saved: the operator's tensor inputs.
        needed: which of them want a gradient.
        grad: gradient of the output, of its shape.

    Returns:
        A gradient for each of `saved`, None where none is wanted. They can be differentiated again.
    """
    again = torch.is_grad_enabled()  # somebody wants a second derivative: the inputs stay connected, each through a view of its own
    with torch.enable_grad():
        tensors = [
            tensor.view_as(tensor) if again and need else tensor.detach().requires_grad_(need)
            for tensor, need in zip(saved, needed, strict=True)
        ]
        wanted = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad(reference(tensors), wanted, grad, create_graph=again))
    return [next(found) if need else None for need in needed]
