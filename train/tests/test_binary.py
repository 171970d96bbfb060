"""EcoFormer's and BiViT's parts against their plain forms."""

import math

import pytest
import torch

from undertone_train.attention import Head
from undertone_train.binary import (
    KernelHash,
    binary_weight,
    bivit,
    ecoformer,
    fit_hash,
    pack_signs,
    scaled_sign,
    sign,
)

EXACT, REPO = (Head("ecoformer", bits=16, variant=v) for v in ("exact", "repo"))


def codes(*shape: int) -> torch.Tensor:
    return sign(torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double())


def test_sign_is_one_at_zero_and_its_gradient_stops_at_one() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 1.0], requires_grad=True)
    assert sign(x).tolist() == [-1, -1, 1, 1, 1]
    sign(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]


def test_a_scaled_sign_s_gradient_does_not_vanish_with_scale() -> None:
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(2)) * 100
    x.requires_grad_()
    scaled_sign(x).sum().backward()
    assert x.grad is not None and (x.grad != 0).float().mean() > 0.7


def test_linear_order_is_the_quadratic_form() -> None:
    h, v = codes(3, 9, 16), torch.randn(3, 9, 4).double()
    w = h @ h.transpose(-1, -2) + 17
    torch.testing.assert_close(ecoformer(EXACT, h, v), (w @ v) / w.sum(-1, keepdim=True))
    assert w.min() >= 1 and w.max() <= 33
    own = (h @ h.transpose(-1, -2)) @ v + 17 * v
    torch.testing.assert_close(ecoformer(REPO, h, v), own / w.sum(-1, keepdim=True))


@pytest.mark.parametrize("d", [16, 24, 32, 48, 64, 128])
def test_the_softmax_threshold_is_a_hamming_threshold(d: int) -> None:
    head = Head("bivit", beta=0.25, variant="sum")
    q, k = codes(4, 33, d), codes(4, 33, d).flip(1)
    chosen = bivit(head, q, k, torch.eye(33).double().expand(4, 33, 33), None)
    distance = (d - q @ k.transpose(-1, -2)) / 2
    limit = distance.amin(-1, keepdim=True) + math.floor(math.log(4) * math.sqrt(d) / 2)
    assert torch.equal(chosen.round(), (distance <= limit).double())


def test_the_mean_variant_s_rows_sum_to_one() -> None:
    head = Head("bivit", beta=0.25, variant="mean")
    out = bivit(head, codes(2, 9, 16), codes(2, 9, 16), torch.ones(2, 9, 1).double(), None)
    torch.testing.assert_close(out, torch.ones_like(out))


def test_weights_keep_two_values_a_row_and_pack_to_bits() -> None:
    w = torch.randn(1, 3, 11, generator=torch.Generator().manual_seed(3))
    scale = torch.tensor([[0.5, 1.0, 2.0]])
    b = binary_weight(w, scale)
    assert torch.equal(b.abs(), scale.unsqueeze(-1).expand_as(b))
    packed = pack_signs(b[0])
    assert packed.shape == (3, 2)
    for row in range(3):
        for column in range(11):
            bit = (int(packed[row, column // 8]) >> (column % 8)) & 1
            assert bit == int(b[0, row, column] > 0)


def test_the_fit_separates_similar_from_dissimilar_tokens() -> None:
    rng = torch.Generator().manual_seed(4)
    centres = torch.randn(1, 1, 1, 4, 16, generator=rng)
    kind = torch.arange(24) % 4
    x = centres[..., kind, :] + 0.3 * torch.randn(1, 6, 2, 24, 16, generator=rng)
    module = KernelHash(1, 2, 16, 25, 16)
    fit_hash(module, x, rng, iterations=20, top=5)
    h = module(x)
    agreement = (h @ h.transpose(-1, -2)).detach() / 16
    same = kind[:, None] == kind[None, :]
    assert agreement[..., same].mean() > agreement[..., ~same].mean() + 0.5
