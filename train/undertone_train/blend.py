"""A head as a blend of attention kinds: what MPCViT's search learns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Head, attend


def simplex(x: Tensor) -> Tensor:
    """The nearest point of the probability simplex, along the last axis.

    Duchi et al. 2008, figure 1. For two entries a, 1 − a it is MPCViT's clamp of a to [0, 1].
    """
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    excess = (ordered.cumsum(-1) - 1) / count
    kept = (ordered > excess).sum(-1, keepdim=True)
    return (x - excess.gather(-1, kept - 1)).clamp(min=0)


class Blend(nn.Module):
    """Σₖ αₖ · attentionₖ for each head, α on the simplex.

    MPCViT (Zeng et al. 2023) has α·ReLU-softmax + (1 − α)·scaling with α in
    [0, 1], from 1; here any number of candidates, cheapest first, from the dearest.
    """

    def __init__(self, replicas: int, heads: int, candidates: tuple[Head, ...]) -> None:
        super().__init__()
        if len(candidates) < 2 or len(set(candidates)) != len(candidates):
            raise ValueError(f"a search needs at least two different kinds, got {candidates}")
        self.candidates = candidates
        start = torch.zeros(replicas, heads, len(candidates))
        start[..., -1] = 1
        # Two axes: weight decay is for matrices alone.
        self.alpha = nn.Parameter(start.flatten(1))

    def shares(self) -> Tensor:
        """α as [R, H, K]."""
        return self.alpha.unflatten(1, (-1, len(self.candidates)))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0
    ) -> Tensor:
        """``q``, ``k``, ``v`` [R, B, H, N, d] to [R, B, H, N, d]."""
        shares = self.shares()[:, None, :, None, None]
        out = torch.zeros_like(v)
        for index, head in enumerate(self.candidates):
            out = out + shares[..., index] * attend(head, q, k, v, mask, dropout)[0]
        return out

    def cost(self) -> Tensor:
        """Mean share [R] of each candidate times its rank in cost, scaled to 0…1."""
        rank = torch.linspace(0, 1, len(self.candidates), device=self.alpha.device)
        return (self.shares() * rank).sum(-1).mean(-1)

    @torch.no_grad()
    def project(self) -> None:
        """Back onto the simplex after a step."""
        self.alpha.copy_(simplex(self.shares()).flatten(1))


class Linearize(nn.Module):
    """MPCViT+'s MLP, with or without its GELU: a share β in [0, 1], from 1, for the whole layer.

    y = W₂(β·GELU(h) + (1 − β)·h), then β·y + (1 − β)·ReLU(y): where β is 0, W₂W₁ is one matrix.
    """

    def __init__(self, replicas: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(replicas, 1))

    def forward(self, h: Tensor, down: Callable[[Tensor], Tensor]) -> Tensor:
        """``h`` [R, B, N, inner] to [R, B, N, D]."""
        beta = self.beta.view(-1, 1, 1, 1)
        y = down(beta * F.gelu(h) + (1 - beta) * h)
        return beta * y + (1 - beta) * F.relu(y)

    def cost(self) -> Tensor:
        """β [R]."""
        return self.beta[:, 0]

    @torch.no_grad()
    def project(self) -> None:
        """Back to [0, 1] after a step."""
        self.beta.clamp_(0, 1)
