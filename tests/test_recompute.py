"""Gradients by recomputation: second derivatives too, and no path counted twice."""

import torch

from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import multi_scale_deformable_attention


def random(*shape: int, grad: bool = True) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_(grad)


def test_second_derivatives_of_the_attention():
    torch.manual_seed(0)
    value, logits = random(1, 12, 2, 2), random(1, 2, 2, 1, 2)
    reference, offsets = torch.rand(1, 2, 1, 2, dtype=torch.float64), random(1, 2, 2, 1, 2, 2, grad=False)

    def attend(value, logits):
        return multi_scale_deformable_attention(value, [3, 4], reference, offsets, logits)

    assert torch.autograd.gradcheck(attend, (value, logits))
    assert torch.autograd.gradgradcheck(attend, (value, logits))


def test_second_derivatives_of_the_convolution():
    torch.manual_seed(1)
    image, mask, weight, bias = random(1, 2, 3, 4), random(1, 9, 3, 4), random(2, 2, 3, 3), random(2)
    offset = random(1, 18, 3, 4, grad=False)

    def convolve(image, mask, weight, bias):
        return deform_conv2d(image, offset, mask, weight, bias, [1, 1], [1, 1], [1, 1], 1, 1)

    assert torch.autograd.gradcheck(convolve, (image, mask, weight, bias))
    assert torch.autograd.gradgradcheck(convolve, (image, mask, weight, bias))


def test_inputs_that_come_from_one_tensor_are_not_counted_twice():
    """Offsets and mask made of the image, as in the network, with a graph for second derivatives being built."""
    torch.manual_seed(2)
    image, weight = random(1, 2, 4, 4), random(2, 2, 3, 3)

    def layer(image):
        offset, mask = image.mean(1, keepdim=True).repeat(1, 18, 1, 1) * 0.3 + 0.1, image[:, :1].repeat(1, 9, 1, 1).sigmoid()
        return deform_conv2d(image, offset, mask, weight, None, [1, 1], [1, 1], [1, 1], 1, 1).square().sum()

    (once,) = torch.autograd.grad(layer(image), image)
    (connected,) = torch.autograd.grad(layer(image), image, create_graph=True)
    assert connected.requires_grad
    torch.testing.assert_close(connected, once)
    assert torch.autograd.gradcheck(layer, (image,))
