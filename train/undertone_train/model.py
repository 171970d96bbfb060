"""ViT and BERT encoders with a leading replica axis R: R seeds trained side by side.

Activations are [R, B, N, D]. A replica taken alone is exactly the model that
``docs/model-format.md`` describes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Head, mixture, row_sum_penalty
from .binary import KernelHash, SimHash, binary_weight, bivit, ecoformer, scaled_sign
from .blend import Blend, Linearize
from .config import Config, Layer


class Linear(nn.Module):
    """``y = x Wᵀ + b`` for each replica; ``weight`` [R, out, in], ``bias`` [R, out]."""

    def __init__(self, replicas: int, inputs: int, outputs: int, bits: str = "float") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(replicas, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(replicas, outputs))
        self.bits = bits
        if bits != "float":
            self.scale = nn.Parameter(torch.ones(replicas, outputs))

    def effective(self) -> Tensor:
        """The weights as used: binarized ones where ``bits`` is "sign"."""
        return self.weight if self.bits == "float" else binary_weight(self.weight, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return apply_linear(x, self.effective(), self.bias)


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[R, ..., in] by [R, out, in]: one batched product over replicas.

    Rows go in up to 32 pieces a replica. The products are the same; the weight's gradient,
    whose inner dimension is the rows, then fills a GPU instead of a few of its processors.
    """
    rows = x[0, ..., 0].numel()
    pieces = math.gcd(rows, 32) if rows >= 1024 else 1
    replicas, outputs, inputs = weight.shape
    w = weight.unsqueeze(1).expand(replicas, pieces, outputs, inputs).reshape(-1, outputs, inputs)
    y = torch.bmm(x.reshape(replicas * pieces, -1, inputs), w.transpose(1, 2))
    return y.view(*x.shape[:-1], outputs) + per_channel(bias, x)


def per_channel(t: Tensor, like: Tensor) -> Tensor:
    """[R, D] shaped to broadcast over ``like`` [R, ..., D]."""
    return t.view(t.shape[0], *([1] * (like.dim() - 2)), t.shape[1])


class LayerNorm(nn.Module):
    """Layer normalization over the last axis."""

    def __init__(self, replicas: int, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(replicas, width))
        self.bias = nn.Parameter(torch.zeros(replicas, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return normal * per_channel(self.weight, x) + per_channel(self.bias, x)


class BatchNorm(nn.Module):
    """Batch normalization a channel, folded into an affine norm on export."""

    def __init__(self, replicas: int, width: int, eps: float, momentum: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(replicas, width))
        self.bias = nn.Parameter(torch.zeros(replicas, width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(replicas, width))
        self.register_buffer("running_var", torch.ones(replicas, width))
        self.eps = max(eps, 1e-5)
        self.momentum = momentum

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias [R, D] of the affine map that inference uses."""
        weight = self.weight / (self.running_var + self.eps).sqrt()
        return weight, self.bias - self.running_mean * weight

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            weight, bias = self.folded()
            return x * per_channel(weight, x) + per_channel(bias, x)
        axes = tuple(range(1, x.dim() - 1))
        var, mean = torch.var_mean(x, axes, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        weight = self.weight / (var + self.eps).sqrt()
        return x * per_channel(weight, x) + per_channel(self.bias - mean * weight, x)


def norm(kind: str, replicas: int, width: int, eps: float) -> LayerNorm | BatchNorm:
    """The norm of a kind of ``config.json``."""
    if kind == "layer_norm":
        return LayerNorm(replicas, width, eps)
    if kind == "affine":
        return BatchNorm(replicas, width, eps)
    raise ValueError(f"norm {kind!r} is unknown; known: layer_norm, affine")


class Quadratic(nn.Module):
    """``a·x² + b·x`` a channel; it starts as GELU's parabola near zero."""

    def __init__(self, replicas: int, width: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((replicas, width), 0.2))
        self.b = nn.Parameter(torch.full((replicas, width), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return (per_channel(self.a, x) * x + per_channel(self.b, x)) * x


@dataclass
class Aux:
    """What the training loss needs beside the logits; penalties are per replica [R]."""

    row_sums: Tensor
    activations: Tensor
    tokens: Tensor
    """Tokens after the final norm, [R, B, N, D]: what distillation matches."""


class Block(nn.Module):
    """One encoder layer."""

    def __init__(
        self,
        config: Config,
        layer: Layer,
        replicas: int,
        candidates: tuple[Head, ...] = (),
        linearize: bool = False,
    ) -> None:
        super().__init__()
        if candidates:
            self.blend = Blend(replicas, len(layer.heads), candidates)
        if linearize:
            self.linearize = Linearize(replicas)
        width, eps = config.hidden_size, config.layer_norm_eps
        inner = config.intermediate_size if layer.mlp == "full" else width
        self.layer, self.heads, self.post = layer, len(layer.heads), config.norm_position == "post"
        self.attention_dropout = self.drop_path = 0.0
        self.norm1 = norm(layer.norm, replicas, width, eps)
        self.query = Linear(replicas, width, width, layer.weights)
        self.kind = layer.heads[0].kind
        self.shared = self.kind == "ecoformer"
        if not self.shared:
            self.key = Linear(replicas, width, width, layer.weights)
        self.value = Linear(replicas, width, width, layer.weights)
        self.out = Linear(replicas, width, width, layer.weights)
        self.norm2 = norm(layer.norm, replicas, width, eps)
        self.up = Linear(replicas, width, inner, layer.weights)
        if layer.mlp == "full":
            self.down = Linear(replicas, inner, width, layer.weights)
        if layer.activation == "quadratic":
            self.quadratic = Quadratic(replicas, inner)
        if self.shared:
            bits, size = layer.heads[0].bits or 16, config.head_size
            self.hash: KernelHash | SimHash = (
                SimHash(replicas, self.heads, size, bits)
                if layer.heads[0].variant == "simhash"
                else KernelHash(replicas, self.heads, size, 25, bits)
            )
        if self.kind == "bivit" and layer.heads[0].values == "sign":
            self.value_scale = nn.Parameter(torch.ones(replicas, width))

    def split(self, x: Tensor) -> Tensor:
        """[R, B, N, D] to [R, B, H, N, D/H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(2, 3)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K and V, [R, B, H, N, d] each, from one product."""
        parts = [self.query, self.value] if self.shared else [self.query, self.key, self.value]
        fused = apply_linear(
            x,
            torch.cat([part.effective() for part in parts], 1),
            torch.cat([part.bias for part in parts], 1),
        )
        split = [self.split(t) for t in fused.chunk(len(parts), -1)]
        return (split[0], split[0], split[1]) if self.shared else (split[0], split[1], split[2])

    def attention(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        q, k, v = self.project(x)
        penalty: Tensor | None = None
        dropout = self.attention_dropout if self.training else 0.0
        if hasattr(self, "blend"):
            out = self.blend(q, k, v, mask, dropout)
        elif self.shared:
            out = ecoformer(self.layer.heads[0], self.hash(q), v)
        elif self.kind == "bivit":
            scale = None
            if self.layer.heads[0].values == "sign":
                scale = self.value_scale.view(v.shape[0], 1, self.heads, 1, v.shape[-1])
            out = bivit(self.layer.heads[0], q, k, v, scale)
        else:
            out, denominators = mixture(self.layer.heads, q, k, v, mask, dropout)
            for head, denominator in denominators:
                if head.kind == "power" and isinstance(denominator, Tensor):
                    term = row_sum_penalty(head, denominator)
                    penalty = term if penalty is None else penalty + term
        return self.out(out.transpose(2, 3).flatten(3)), penalty

    def kept(self, branch: Tensor) -> Tensor:
        """Stochastic depth: in training, some images do without the branch [R, B, N, D]."""
        if not (self.training and self.drop_path):
            return branch
        return branch * F.dropout(branch.new_ones(*branch.shape[:2], 1, 1), self.drop_path)

    def mlp(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.layer.activation == "sign":
            return self.down(scaled_sign(self.up(scaled_sign(x)))), None
        h, penalty = self.up(x), None
        if hasattr(self, "linearize"):
            return self.linearize(h, self.down), None
        match self.layer.activation:
            case "gelu":
                h = F.gelu(h)
            case "relu":
                h = F.relu(h)
            case "quadratic":
                excess = torch.relu(h.abs() - 6)
                penalty = (excess * excess).flatten(1).mean(1)
                h = self.quadratic(h)
            case "identity":
                pass
            case other:
                raise ValueError(f"activation {other!r} is unknown")
        return (self.down(h) if self.layer.mlp == "full" else h), penalty

    def forward(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self.post:
            attended, rows = self.attention(x, mask)
            x = self.norm1(x + self.kept(attended))
            fed, activations = self.mlp(x)
            return self.norm2(x + self.kept(fed)), rows, activations
        attended, rows = self.attention(self.norm1(x), mask)
        x = x + self.kept(attended)
        fed, activations = self.mlp(self.norm2(x))
        return x + self.kept(fed), rows, activations


class Encoder(nn.Module):
    """Embedding, blocks, final norm (pre-norm only), pooling and classifier."""

    def __init__(
        self,
        config: Config,
        replicas: int,
        candidates: tuple[Head, ...] = (),
        linearize: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.replicas = config, replicas
        width, eps = config.hidden_size, config.layer_norm_eps
        if config.model_type == "vit":
            self.patches = Linear(replicas, config.num_channels * config.patch_size**2, width)
            self.positions = nn.Parameter(torch.empty(replicas, config.tokens, width))
            if config.class_token:
                self.class_token = nn.Parameter(torch.empty(replicas, 1, width))
        elif config.model_type == "bert":
            if config.norm_position != "post":
                raise ValueError("bert models are post-norm")
            self.words = nn.Parameter(torch.empty(replicas, config.vocab_size, width))
            self.positions = nn.Parameter(
                torch.empty(replicas, config.max_position_embeddings, width)
            )
            self.token_types = nn.Parameter(torch.zeros(replicas, 1, width))
            self.embedding_norm = LayerNorm(replicas, width, eps)
        else:
            raise ValueError(f"model_type {config.model_type!r} is unknown; known: vit, bert")
        self.blocks = nn.ModuleList(
            Block(config, layer, replicas, candidates, linearize) for layer in config.layers
        )
        if config.norm_position == "pre":
            self.final_norm = norm(config.final_norm, replicas, width, eps)
        self.classifier = Linear(replicas, width, len(config.labels))

    def regularise(self, attention_dropout: float, drop_path: float) -> None:
        """Dropout of attention weights, and stochastic depth that grows to ``drop_path``.

        Both are drawn for all replicas together: seeds side by side then learn something else
        than seeds alone.
        """
        last = max(len(self.blocks) - 1, 1)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            block.attention_dropout = attention_dropout
            block.drop_path = drop_path * index / last

    def blends(self) -> list[Blend | Linearize]:
        """The blends of a search; empty otherwise."""
        return [module for module in self.modules() if isinstance(module, Blend | Linearize)]

    def blend_cost(self) -> Tensor:
        """Mean of the blends' cost [R]: 0 if all heads are the cheapest candidate."""
        return torch.stack([blend.cost() for blend in self.blends()]).mean(0)

    def project_blends(self) -> None:
        """Back onto the simplex after a step."""
        for blend in self.blends():
            blend.project()

    def embed(self, x: Tensor) -> Tensor:
        """Normalised images [R, B, C, H, W] or token ids [R, B, N] to tokens [R, B, N, D]."""
        c = self.config
        if c.model_type == "vit":
            r, b = x.shape[:2]
            side, p = c.image_size // c.patch_size, c.patch_size
            x = x.view(r, b, c.num_channels, side, p, side, p)
            x = x.permute(0, 1, 3, 5, 2, 4, 6).reshape(r, b, side * side, -1)
            x = self.patches(x)
            if c.class_token:
                x = torch.cat([self.class_token.unsqueeze(1).expand(r, b, 1, -1), x], 2)
            return x + self.positions.unsqueeze(1)
        replica = torch.arange(self.replicas, device=x.device).view(-1, 1, 1)
        e = self.words[replica, x] + (self.positions[:, : x.shape[2]] + self.token_types)[:, None]
        return self.embedding_norm(e)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Aux]:
        h = self.embed(x)
        rows = torch.zeros(self.replicas, device=h.device, dtype=h.dtype)
        activations = torch.zeros_like(rows)
        for block in self.blocks:
            h, row, activation = block(h, mask)
            rows = rows if row is None else rows + row
            activations = activations if activation is None else activations + activation
        if self.config.norm_position == "pre":
            h = self.final_norm(h)
        count = max(len(self.config.layers), 1)
        pooled = h.mean(2) if self.config.pooling == "mean" else h[:, :, 0]
        return self.classifier(pooled), Aux(rows / count, activations / count, h)


@torch.no_grad()
def initialise(model: Encoder, seeds: list[int]) -> None:
    """Xavier-uniform matrices, small normal embeddings, a CPU generator for each seed.

    A seed's weights do not depend on the other seeds or on the device.
    """
    for replica, seed in enumerate(seeds):
        rng = torch.Generator().manual_seed(0x5EED0000 + seed)
        for name, parameter in model.named_parameters():
            view = parameter[replica]
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("positions", "class_token", "words"):
                deviation = 0.1 if leaf == "words" else 0.02
                view.copy_(torch.randn(view.shape, generator=rng) * deviation)
            elif leaf == "weight" and view.dim() == 2:
                bound = math.sqrt(6.0 / (view.shape[0] + view.shape[1]))
                view.copy_((torch.rand(view.shape, generator=rng) * 2 - 1) * bound)


__all__ = ["Aux", "Block", "Encoder", "Head", "Linear", "initialise"]
