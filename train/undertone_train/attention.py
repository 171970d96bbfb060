"""The attention kinds of ``docs/model-format.md`` as differentiable functions.

With ``s = q kᵀ / √d`` every kind is ``Σⱼ wⱼ vⱼ / denominator``: :func:`weights` gives the
weights, :func:`attend` sums them over V and divides last, as the Rust core does.
A mask multiplies the weights (a masked key has weight 0), and ``N`` is then the number of
keys that the row may see, which is public.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = (
    "softmax",
    "power",
    "relu_softmax",
    "scaling",
    "two_quad",
    "relu_squared",
    "uniform",
)
"""Kinds that need no tensors of their own."""

DEFAULT_EPS = {"power": 1e-3, "relu_softmax": 1e-5, "two_quad": 1e-5}


@dataclass(frozen=True)
class Head:
    """One head's attention: the entry ``undertone.layers[i].heads[j]`` of ``config.json``."""

    kind: str
    p: int | None = None
    eps: float | None = None
    mean: bool = False
    c: float = 0.0
    stable: bool = False
    """``power`` only: scores are first divided by ``max|s| + eps`` of their row."""
    bits: int | None = None
    """``ecoformer`` only: code length."""
    variant: str | None = None
    """``ecoformer``: "exact" or "repo". ``bivit``: "mean" or "sum"."""
    beta: float | None = None
    """``bivit`` only: the threshold is ``beta`` times the row's largest softmax weight."""
    values: str | None = None
    """``bivit`` only: "float" or "sign" values."""

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "ecoformer", "bivit"):
            raise ValueError(f"attention kind {self.kind!r} is unknown; known: {KINDS}")
        if self.kind == "power" and (self.p is None or self.p < 2 or self.p % 2):
            raise ValueError(f"power attention needs an even p of at least 2, got {self.p}")

    @property
    def epsilon(self) -> float:
        """The ``eps`` in force: the entry's own or the kind's default."""
        return DEFAULT_EPS.get(self.kind, 0.0) if self.eps is None else self.eps

    def to_json(self) -> dict[str, Any]:
        """The entry as ``config.json`` holds it, defaults left out."""
        kept = {k: v for k, v in asdict(self).items() if v is not None and v is not False}
        if kept.get("c") == 0.0:
            del kept["c"]
        if self.kind in DEFAULT_EPS:
            kept["eps"] = self.epsilon
        return kept

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Head:
        """Parses one entry; an unknown key is a ``TypeError``."""
        return cls(**entry)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """``q kᵀ / √d`` for ``q``, ``k`` of shape [..., N, d]: shape [..., N, N]."""
    return (q @ k.transpose(-1, -2)) * (1.0 / math.sqrt(q.shape[-1]))


def seen(s: Tensor, mask: Tensor | None) -> Tensor | float:
    """Keys that each row may see: N without a mask, else the mask's row sums."""
    return float(s.shape[-1]) if mask is None else mask.to(s.dtype).sum(-1, keepdim=True)


def weights(head: Head, s: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
    """Unnormalised weights and their denominator.

    ``s`` has shape [..., N, N]; ``mask`` is boolean and broadcasts to it (true: seen).
    The denominator has shape [..., N, 1], or is a number where it is public.
    """
    m = None if mask is None else mask.to(s.dtype)
    n = seen(s, mask)

    def masked(w: Tensor) -> Tensor:
        return w if m is None else w * m

    match head.kind:
        case "softmax":
            if mask is not None:
                s = s.masked_fill(~mask, -math.inf)
            w = torch.exp(s - s.detach().amax(-1, keepdim=True))
            return w, w.sum(-1, keepdim=True)
        case "power":
            assert head.p is not None
            s = masked(s)
            if head.stable:
                s = s / (s.detach().abs().amax(-1, keepdim=True) + head.epsilon)
            w = s * s
            for _ in range(head.p // 2 - 1):
                w = w * (s * s)
            if head.mean:
                w = w / n
            return w, w.sum(-1, keepdim=True) + head.epsilon
        case "relu_softmax":
            w = masked(torch.relu(s))
            return w, w.sum(-1, keepdim=True) + head.epsilon
        case "scaling":
            return masked(s), n
        case "two_quad":
            w = masked((s + head.c) ** 2)
            return w, w.sum(-1, keepdim=True) + head.epsilon
        case "relu_squared":
            return masked(torch.relu(s) ** 2), n
        case "uniform":
            return masked(torch.ones_like(s)), n
    raise ValueError(f"{head.kind} attention has tensors of its own: see binary.py")


def attend(
    head: Head, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor | float]:
    """One kind of attention over ``q``, ``k``, ``v`` of shape [..., N, d].

    Returns the output [..., N, d] and the denominator, which the row-sum regulariser reads.
    ``dropout`` is the share of weights that training leaves out, the others made larger for it.
    """
    if dropout:
        w, denominator = weights(head, scores(q, k), mask)
        return F.dropout(w / denominator, dropout) @ v, denominator
    if head.kind == "uniform" and mask is None:
        return v.mean(-2, keepdim=True).expand_as(v), float(v.shape[-2])
    if head.kind == "scaling" and mask is None:
        # The linear order (Q/√N)(Kᵀ/√N · V)/√d of MPCViT: no N × N matrix.
        n = v.shape[-2]
        context = (k.transpose(-1, -2) @ v) * (1.0 / (n * math.sqrt(q.shape[-1])))
        return q @ context, float(n)
    w, denominator = weights(head, scores(q, k), mask)
    return (w @ v) / denominator, denominator


def groups(heads: tuple[Head, ...]) -> list[tuple[Head, list[int]]]:
    """Equal heads together, in order of first appearance: one batched call a kind."""
    found: dict[Head, list[int]] = {}
    for index, head in enumerate(heads):
        found.setdefault(head, []).append(index)
    return list(found.items())


def mixture(
    heads: tuple[Head, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, list[tuple[Head, Tensor | float]]]:
    """Heterogeneous heads: ``q``, ``k``, ``v`` are [..., H, N, d], one entry of ``heads`` a head.

    Returns [..., H, N, d] and each group's denominator.
    """
    if q.shape[-3] != len(heads):
        raise ValueError(f"{len(heads)} heads are configured, the tensors have {q.shape[-3]}")
    parts = groups(heads)
    if len(parts) == 1:
        out, denominator = attend(heads[0], q, k, v, mask, dropout)
        return out, [(heads[0], denominator)]
    outputs: list[Tensor | None] = [None] * len(heads)
    denominators: list[tuple[Head, Tensor | float]] = []
    for head, members in parts:
        adjacent = members == list(range(members[0], members[-1] + 1))
        at = slice(members[0], members[-1] + 1) if adjacent else members
        out, denominator = attend(
            head, q[..., at, :, :], k[..., at, :, :], v[..., at, :, :], mask, dropout
        )
        denominators.append((head, denominator))
        for position, member in enumerate(members):
            outputs[member] = out[..., position, :, :]
    return torch.stack([o for o in outputs if o is not None], dim=-3), denominators


def row_sum_penalty(head: Head, denominator: Tensor) -> Tensor:
    """Keeps power attention's row sums in the octaves that an encrypted reciprocal covers.

    ``mean relu(|log₂ Σ − centre| − width)²`` per replica (axis 0), with centre 4 and width 3
    for p = 2, centre 6 and width 4 for p = 4.
    """
    centre, width = (4.0, 3.0) if head.p == 2 else (6.0, 4.0)
    excess = torch.relu((torch.log2(denominator) - centre).abs() - width)
    return (excess * excess).flatten(1).mean(1)
