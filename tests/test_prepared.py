"""A prepared network gives the numbers of the network it was made from, in its precision, and leaves that one alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from exporting import seeded_network
from occport.model.backbone import ModulatedDeformConv
from occport.model.prepared import DTYPES, PRECISIONS, prepare_, prepared
from occport.model.surroundocc import SurroundOcc, build_model
from occport.ops import native
from occport.seeds import seed_weights
from test_surroundocc import HW, images, micro_model, rigs

FP32 = 1e-4  # of logits of about 1


def both(model: SurroundOcc, other: SurroundOcc, img: Tensor, lidar2img: Tensor) -> list[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        return list(zip(model(img, lidar2img), other(img, lidar2img), strict=True))


@pytest.fixture(scope="module")
def network() -> SurroundOcc:
    """Seeded: random statistics in every BatchNorm, random offsets; nothing that a wrong fold would leave as it is."""
    model = build_model(micro_model().config)
    seed_weights(model, 3)
    return model


@pytest.mark.parametrize("kernels", (True, False), ids=("kernels", "references"))
@pytest.mark.parametrize("turns", ((4.0,), (0.0, 31.0)), ids=("one sample", "two samples"))
def test_fp32_is_the_network_to_rounding(network, turns, kernels):
    img, lidar2img = images(len(turns)), rigs(turns)
    fast = prepared(network)
    if kernels:
        pairs = both(network, fast, img, lidar2img)
    else:
        with native.switched_off():
            pairs = both(network, fast, img, lidar2img)
    for want, got in pairs:
        assert got.dtype == torch.float32 and got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=FP32)
        assert (got.argmax(1) == want.argmax(1)).float().mean() > 0.999


@pytest.mark.parametrize("together", (1, 4 * 64 * 96), ids=("one image at a time", "four, then two"))
def test_images_run_in_parts(network, together, monkeypatch):
    monkeypatch.setattr("occport.model.prepared.TOGETHER", together)
    for want, got in both(network, prepared(network), images(1), rigs((4.0,))):
        torch.testing.assert_close(got, want, rtol=0, atol=FP32)


@pytest.mark.parametrize("precision", ("fp32", "bf16"))
@torch.no_grad()
def test_nan_is_not_hidden(network, precision):
    """One image's NaN reaches every logit of the network as it is; a label made of it would look like any other."""
    img = images(1)
    img[0, 2, 1, 20, 30] = torch.nan
    for want, got in both(network, prepared(network, precision), img, rigs((4.0,))):
        assert want.isnan().any()
        assert (got.isnan() >= want.isnan()).all()


@torch.no_grad()
def test_one_thread_gives_the_same(network):
    fast, threads = prepared(network), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fast(images(1), rigs((4.0,)))
        torch.set_num_threads(2)
        two = fast(images(1), rigs((4.0,)))
    finally:
        torch.set_num_threads(threads)
    for alone, both_cores in zip(one, two, strict=True):
        torch.testing.assert_close(alone, both_cores, rtol=0, atol=FP32)


@pytest.mark.parametrize(("precision", "rms", "labels"), (("bf16", 0.06, 0.95), ("fp16", 0.006, 0.99)))
def test_lower_precisions_keep_the_labels(network, precision, rms, labels):
    for want, got in both(network, prepared(network, precision), images(1), rigs((4.0,))):
        assert got.dtype == torch.float32
        assert (got - want).square().mean().sqrt() < rms * want.std()
        assert (got.argmax(1) == want.argmax(1)).float().mean() > labels


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_kept_in_which_dtype(network, precision):
    fast = prepared(network, precision)
    image_half = list(fast.img_backbone.parameters())
    assert image_half and {parameter.dtype for parameter in image_half} == {DTYPES[precision]}
    for name, module in fast.pts_bbox_head.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm | nn.Embedding):
            assert module.weight.dtype == torch.float32, name
    assert fast.projection.points.dtype == torch.float32


def test_no_batch_norm_is_left_and_every_convolution_is_channels_last(network):
    fast = prepared(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    for module in fast.modules():
        if isinstance(module, nn.Conv2d | ModulatedDeformConv):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
        if isinstance(module, ModulatedDeformConv):
            assert module.bias is not None


def test_the_network_itself_stays_as_it_is(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared(network, "bf16")
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))


def test_in_place_holds_no_second_set_of_weights(network):
    model = copy.deepcopy(network)
    assert prepare_(model) is model
    before = sum(parameter.numel() for parameter in network.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) < before  # two convolutions have become one


@pytest.mark.parametrize("cameras", (1, 5))
def test_any_number_of_cameras(cameras):
    model = build_model(replace(micro_model().config, num_cameras=cameras))
    seed_weights(model, 1)
    for want, got in both(model, prepared(model), images(1, cameras), rigs((4.0,), cameras)):
        torch.testing.assert_close(got, want, rtol=0, atol=FP32)


def test_another_network_has_logits_without_semantics():
    model = seeded_network().model
    count, (height, width) = model.config.num_cameras, HW
    for want, got in both(model, prepared(model), images(1, count, (height, width)), rigs((4.0,), count)):
        torch.testing.assert_close(got, want, rtol=0, atol=FP32)


def test_refusals(network):
    with pytest.raises(ValueError, match="precision: expected one of fp32, bf16, fp16, got 'int8'"):
        prepared(network, "int8")
    with pytest.raises(ValueError, match="not prepared yet"):
        prepare_(prepared(network))
    with pytest.raises(ValueError, match="eval mode"):
        prepared(copy.deepcopy(network).train())
    with pytest.raises(ValueError, match="float32"):
        prepared(copy.deepcopy(network).double())
