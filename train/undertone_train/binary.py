"""One-bit attention and weights: EcoFormer's hashed codes and BiViT's binarization.

EcoFormer: arXiv 2211.13771, hash fit after Liu et al. 2012 (KSH). BiViT: arXiv 2211.07091.
Signs take the value +1 at zero; gradients pass straight through where the input is inside ±1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Head


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (x.abs() < 1).to(x.dtype)


def sign(x: Tensor) -> Tensor:
    """±1, with the straight-through gradient zero where |x| ≥ 1."""
    out: Tensor = _Sign.apply(x)
    return out


def scaled_sign(x: Tensor) -> Tensor:
    """:func:`sign` whose gradient window is twice the row's mean magnitude, not ±1.

    A sign ignores positive scale, so the window must follow it: a fixed one lets no gradient
    through to queries and values that a softmax model has grown large.
    """
    return sign(x / (2 * x.detach().abs().mean(-1, keepdim=True) + 1e-6))


def binary_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """BiViT's weights: ``scale[c] · sign(W[c] − mean W[c])`` for ``weight`` [R, out, in]."""
    centred = weight - weight.mean(-1, keepdim=True)
    return scale.unsqueeze(-1) * sign(centred)


class KernelHash(nn.Module):
    """EcoFormer's hash of one layer: ``h = sign(A κ(x))`` for each head.

    ``anchors`` [R, H, m, d] are unit vectors, ``mean`` [R, H, m] the training mean of the
    kernel values, ``vectors`` [R, H, b, m] the hash vectors A.
    """

    def __init__(self, replicas: int, heads: int, head_size: int, anchors: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.anchors = nn.Parameter(torch.zeros(replicas, heads, anchors, head_size))
        self.mean = nn.Parameter(torch.zeros(replicas, heads, anchors))
        self.vectors = nn.Parameter(torch.zeros(replicas, heads, bits, anchors))

    def kernel(self, x: Tensor) -> Tensor:
        """Uncentred RBF values [R, B, H, N, m] of ``x`` [R, B, H, N, d].

        The width σ is the mean squared distance of the image and head.
        """
        unit = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        a = self.anchors.unsqueeze(1)
        distance = (
            unit.square().sum(-1, keepdim=True)
            + a.square().sum(-1).unsqueeze(-2)
            - 2 * unit @ a.transpose(-1, -2)
        ).clamp_min(0)
        sigma = distance.mean((-1, -2), keepdim=True)
        return torch.exp(-distance / (2 * sigma))

    def responses(self, x: Tensor) -> Tensor:
        """``y = A κ`` before the sign: [R, B, H, N, bits]."""
        centred = self.kernel(x) - self.mean[:, None, :, None, :]
        return centred @ self.vectors.unsqueeze(1).transpose(-1, -2)

    def forward(self, x: Tensor) -> Tensor:
        """Codes in ±1: [R, B, H, N, bits]."""
        return sign(self.responses(x))


class SimHash(nn.Module):
    """The control: ``h = sign(G x)`` with fixed Gaussian ``vectors`` [R, H, b, d]."""

    def __init__(self, replicas: int, heads: int, head_size: int, bits: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(16)
        drawn = torch.randn(heads, bits, head_size, generator=rng)
        self.vectors: Tensor
        self.register_buffer("vectors", drawn.expand(replicas, -1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Codes in ±1: [R, B, H, N, bits]."""
        unit = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return sign(unit @ self.vectors.unsqueeze(1).transpose(-1, -2))


def ecoformer(head: Head, codes: Tensor, v: Tensor) -> Tensor:
    """Linear attention on codes [..., N, b] over values [..., N, d].

    "exact": weights ``h_i·h_j + c`` with c = b + 1, all positive. "repo": what the released
    code computes, where the constant multiplies only the token's own value.
    """
    bits, n = codes.shape[-1], codes.shape[-2]
    c = bits + 1
    context = codes.transpose(-1, -2) @ v
    own = v if head.variant == "repo" else v.sum(-2, keepdim=True)
    denominator = codes @ codes.sum(-2).unsqueeze(-1) + n * c
    return (codes @ context + c * own) / denominator


@torch.no_grad()
def fit_hash(
    module: KernelHash, x: Tensor, generator: torch.Generator, iterations: int = 100, top: int = 10
) -> None:
    """KSH: greedy bits on the cosine similarity of tokens of one image.

    ``x`` [R, B, H, N, d] are projections of training images. Each bit starts from the leading
    eigenvector of KᵀSK a = λ KᵀK a, then follows 100 steps of Nesterov descent on
    ``−mean yᵀSy/(N b)`` with y = 2σ(Ka) − 1; the descent is kept where the hard loss falls.
    """
    replicas, images, heads, n, _ = x.shape
    bits, m = module.bits, module.anchors.shape[2]
    unit = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    flat = unit.transpose(1, 2).reshape(replicas, heads, images * n, -1)
    for r in range(replicas):
        chosen = torch.randperm(images * n, generator=generator)[:m].to(x.device)
        module.anchors[r] = flat[r][:, chosen]
    kernel = module.kernel(x)
    module.mean.copy_(kernel.mean((1, 3)))
    k = (kernel - module.mean[:, None, :, None, :]).transpose(1, 2)  # [R, H, B, N, m]
    cosine = (unit @ unit.transpose(-1, -2)).transpose(1, 2)
    top = min(top, n // 2)
    s = torch.zeros_like(cosine)
    s.scatter_(-1, cosine.topk(top, -1).indices, 1.0)
    s.scatter_(-1, (-cosine).topk(top, -1).indices, -1.0)
    s *= bits
    gram = torch.einsum("rhbnm,rhbnk->rhmk", k, k)
    gram += (
        1e-6
        * gram.diagonal(dim1=-1, dim2=-2).mean(-1)[..., None, None]
        * torch.eye(m, device=x.device)
    )
    root = torch.linalg.inv(torch.linalg.cholesky(gram.double())).to(x.dtype)

    def hard_loss(a: Tensor) -> Tensor:
        y = torch.where(torch.einsum("rhbnm,rhm->rhbn", k, a) >= 0, 1.0, -1.0)
        return -torch.einsum("rhbn,rhbnk,rhbk->rh", y, s, y)

    for bit in range(bits):
        symmetric = s + s.transpose(-1, -2)
        between = torch.einsum("rhbnm,rhbnj,rhbjk->rhmk", k, symmetric, k)
        whitened = root @ between @ root.transpose(-1, -2)
        leading = torch.linalg.eigh(whitened.double())[1][..., -1].to(x.dtype)
        a = torch.einsum("rhkm,rhk->rhm", root, leading)
        a = a * (images * n / torch.einsum("rhm,rhmk,rhk->rh", a, gram, a)).sqrt()[..., None]
        first, velocity = a, torch.zeros_like(a)
        for _ in range(iterations):
            y = torch.tanh(0.5 * torch.einsum("rhbnm,rhm->rhbn", k, a))
            slope = torch.einsum("rhbnj,rhbj->rhbn", symmetric, y) * (1 - y * y) * 0.5
            gradient = -torch.einsum("rhbnm,rhbn->rhm", k, slope) / (images * n * bits)
            velocity = 0.9 * velocity + gradient
            a = a - 5e-4 * (gradient + 0.9 * velocity)
        a = torch.where((hard_loss(a) < hard_loss(first))[..., None], a, first)
        module.vectors[:, :, bit] = a
        y = torch.where(torch.einsum("rhbnm,rhm->rhbn", k, a) >= 0, 1.0, -1.0)
        s = s - y.unsqueeze(-1) * y.unsqueeze(-2)


def bivit(head: Head, q: Tensor, k: Tensor, v: Tensor, value_scale: Tensor | None) -> Tensor:
    """Softmax-aware binarization on signed queries and keys, [..., N, d].

    The weights are ``[softmax ≥ β · row maximum]`` in {0, 1}; "sum" adds the chosen values as
    published, "mean" divides by how many were chosen, so that a row still sums to one.
    With ``values = "sign"`` the values are ``value_scale · sign(v)``, scale a channel.
    """
    s = (scaled_sign(q) @ scaled_sign(k).transpose(-1, -2)) * (1.0 / math.sqrt(q.shape[-1]))
    attention = torch.softmax(s, -1)
    chosen = (attention >= (head.beta or 0.25) * attention.amax(-1, keepdim=True)).to(v.dtype)
    if head.variant == "mean":
        chosen = chosen / chosen.sum(-1, keepdim=True)
    a = attention + (chosen - attention).detach()
    if value_scale is not None:
        return (a @ scaled_sign(v)) * value_scale
    return a @ v


def pack_signs(weight: Tensor) -> Tensor:
    """Bits of ``weight ≥ 0`` [out, in] as bytes [out, ⌈in/8⌉], least significant bit first."""
    bits = (weight >= 0).to(torch.uint8)
    pad = (-bits.shape[1]) % 8
    bits = torch.nn.functional.pad(bits, (0, pad)).reshape(bits.shape[0], -1, 8)
    powers = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8)
    return (bits * powers).sum(-1).to(torch.uint8)
