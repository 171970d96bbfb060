"""Every attention kind: gradients, laws and the committed golden file."""

import json
from pathlib import Path

import pytest
import torch

from undertone_train.attention import Head, attend, mixture, row_sum_penalty, weights
from undertone_train.golden import HEADS, attention_cases, masks

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "attention.json"


def drawn(heads: int, n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(heads, n, d, generator=rng, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("head", HEADS, ids=lambda h: str(h.to_json()))
@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
def test_gradients_match_finite_differences(head: Head, mask: str) -> None:
    q, k, v = (t.requires_grad_() for t in drawn(2, 4, 3))
    if head.stable:
        # The row maximum is a constant of the backward pass: only its own gradient is left out.
        head = Head("power", p=head.p, eps=head.eps)
    seen = masks(4)[mask]
    assert torch.autograd.gradcheck(lambda *a: attend(head, *a, seen)[0], (q, k, v))


@pytest.mark.parametrize("head", HEADS, ids=lambda h: str(h.to_json()))
def test_one_token_and_masked_keys(head: Head) -> None:
    q, k, v = drawn(2, 1, 4)
    assert torch.isfinite(attend(head, q, k, v)[0]).all()
    q, k, v = drawn(1, 6, 4)
    mask = masks(6)["causal"]
    out, _ = attend(head, q, k, v, mask)
    for row in range(6):
        part, _ = attend(head, q[:, : row + 1], k[:, : row + 1], v[:, : row + 1])
        torch.testing.assert_close(out[:, row], part[:, row])


@pytest.mark.parametrize("kind", ["softmax", "uniform"])
def test_rows_sum_to_one(kind: str) -> None:
    s = drawn(1, 7, 7)[0]
    w, denominator = weights(Head(kind), s)
    torch.testing.assert_close((w / denominator).sum(-1), torch.ones(1, 7, dtype=torch.float64))


def test_power_ignores_positive_scale_and_sign() -> None:
    head = Head("power", p=4, eps=0.0)
    q, k, v = drawn(1, 5, 4)
    reference, _ = attend(head, q, k, v)
    torch.testing.assert_close(attend(head, 3.7 * q, k, v)[0], reference)
    torch.testing.assert_close(attend(head, -q, k, v)[0], reference)


def test_stable_power_is_power_up_to_epsilon() -> None:
    q, k, v = drawn(2, 9, 8)
    stable, _ = attend(Head("power", p=4, eps=1e-9, stable=True), q, k, v)
    torch.testing.assert_close(stable, attend(Head("power", p=4, eps=0.0), q, k, v)[0])


def test_scaling_in_linear_order_is_the_quadratic_form() -> None:
    q, k, v = drawn(2, 9, 8)
    everything = torch.ones(9, 9, dtype=torch.bool)
    torch.testing.assert_close(
        attend(Head("scaling"), q, k, v)[0], attend(Head("scaling"), q, k, v, everything)[0]
    )


def test_softmax_is_torch_s_own() -> None:
    q, k, v = drawn(2, 9, 8)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(Head("softmax"), q, k, v)[0], expected)


def test_a_mixture_is_each_head_alone_in_any_order() -> None:
    q, k, v = drawn(4, 5, 8)
    heads = (Head("scaling"), Head("softmax"), Head("scaling"), Head("power", p=2))
    out, _ = mixture(heads, q, k, v)
    for index, head in enumerate(heads):
        alone, _ = attend(head, q[index], k[index], v[index])
        torch.testing.assert_close(out[index], alone)
    with pytest.raises(ValueError, match="4 heads are configured"):
        mixture(heads, q[:2], k[:2], v[:2])


def test_the_penalty_is_zero_inside_its_band_only() -> None:
    head = Head("power", p=2)
    inside = torch.full((1, 3), 2.0**6)
    assert row_sum_penalty(head, inside).item() == 0.0
    assert row_sum_penalty(head, inside * 4).item() == pytest.approx(1.0)


def test_bad_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Head("softmux")
    with pytest.raises(ValueError, match="even p"):
        Head("power", p=3)
    with pytest.raises(TypeError):
        Head.from_json({"kind": "softmax", "temperature": 2})


def test_the_committed_golden_file_is_current() -> None:
    committed, fresh = json.loads(GOLDEN.read_text())["cases"], attention_cases()["cases"]
    assert len(committed) == len(fresh)
    for old, new in zip(committed, fresh, strict=True):
        for a, b in zip(old["outputs"], new["outputs"], strict=True):
            assert {k: a[k] for k in a if k != "output"} == {k: b[k] for k in b if k != "output"}
            assert a["output"] == pytest.approx(b["output"], rel=1e-9, abs=1e-12)
