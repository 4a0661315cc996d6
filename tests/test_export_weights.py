"""Where weights come from, and how that is said."""

from __future__ import annotations

import pytest
import torch

from occport.errors import CheckpointError
from occport.export.weights import UNTRAINED, Weights, load_model


def test_seeded_weights_are_untrained(tiny_network):
    model, origin, report = load_model(tiny_network.spec.config, None, 0)
    assert report is None and not model.training
    assert origin.checkpoint is None and origin.seed == 0
    assert origin.described == "UNTRAINED: seeded with 0, no checkpoint was given; what the network predicts is meaningless"
    assert all(torch.equal(tensor, tiny_network.model.state_dict()[name]) for name, tensor in model.state_dict().items())
    _, other, _ = load_model(tiny_network.spec.config, None, 1)
    assert other.fingerprint != origin.fingerprint and other.seed == 1


def test_checkpoint(tiny_network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": tiny_network.model.state_dict()}, path)
    model, origin, report = load_model(tiny_network.spec.config, path, 5)
    assert report is not None and report.fits
    assert origin == Weights(str(path), None, load_model(tiny_network.spec.config, None, 0)[1].fingerprint)
    assert UNTRAINED not in origin.described and str(path) in origin.described and origin.fingerprint in origin.described
    assert torch.equal(model.img_backbone.conv1.weight, tiny_network.model.img_backbone.conv1.weight)


def test_checkpoint_that_does_not_fit(tiny_network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth does not fit the config"):
        load_model(tiny_network.spec.config, path, 0)
