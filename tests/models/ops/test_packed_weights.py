"""The cache of transformed weights."""

from __future__ import annotations

import torch

from glassworld.models.ops.packed_weights import PackedWeights


def test_packed_weights_are_renewed_when_their_weight_changes() -> None:
    packed, weight = PackedWeights(), torch.ones(2)
    with torch.inference_mode():
        first = packed.get(weight, lambda w: w + 1)
        assert packed.get(weight, lambda w: w + 1) is first
        assert packed.get(weight, lambda w: w + 2, key="another") is not first
    with torch.no_grad():
        weight.mul_(3)
    with torch.inference_mode():
        assert packed.get(weight, lambda w: w + 1).tolist() == [4, 4]
        inference_weight = torch.ones(1)
        assert packed.get(inference_weight, lambda w: w - 1, key="inference").tolist() == [0]
    weight.requires_grad_(True)
    assert packed.get(weight, lambda w: w + 1).requires_grad
