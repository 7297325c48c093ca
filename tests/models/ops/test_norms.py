"""RMS norms of few operators equal torch's, in every precision and with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glassworld.models.ops.norms import rms_norm, rms_norm_without_eps

X = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e3])  # mean squares below and above epsilon
def test_rms_norms_equal_torchs(size: float) -> None:
    x, weight = (X * size).float(), torch.linspace(0.5, 2, 48)
    with torch.inference_mode():
        for scale in (None, weight):
            exact = F.rms_norm(x.double(), (48,), None if scale is None else scale.double(), 1e-6)
            torch.testing.assert_close(rms_norm(x, 1e-6, scale).double(), exact, rtol=1e-6, atol=0)
        exact = F.normalize(x.double(), dim=-1) * 48**0.5 * weight
        torch.testing.assert_close(
            rms_norm_without_eps(x, weight).double(), exact, rtol=1e-6, atol=0
        )


def test_rms_norms_of_zeros_are_zeros() -> None:
    zeros = torch.zeros(3, 48)
    with torch.inference_mode():
        assert torch.equal(rms_norm(zeros, 1e-6), zeros)
        assert torch.equal(rms_norm_without_eps(zeros, torch.ones(48)), zeros)


def test_rms_norms_with_gradients_or_half_precision_work() -> None:
    x = X.float().requires_grad_()
    rms_norm(x, 1e-6).sum().backward()
    assert x.grad is not None
    with torch.inference_mode():
        for norm in (
            rms_norm(X.bfloat16(), 1e-6),
            rms_norm_without_eps(X.bfloat16(), torch.ones(48)),
        ):
            assert norm.dtype is torch.bfloat16
            torch.testing.assert_close(norm.float(), rms_norm(X.float(), 0.0), rtol=0.02, atol=0.01)
