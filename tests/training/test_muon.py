"""Muon's orthogonalization."""

import torch

from glassworld.training.muon import orthogonalize


def test_orthogonalize_brings_singular_values_near_one() -> None:
    random = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=random)))
        assert values.min() > 0.6
        assert values.max() < 1.3
