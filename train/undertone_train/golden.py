"""Golden files: what PyTorch computes in float64, for Rust to be held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attention import Head, attend, mixture
from .config import Config, Layer
from .model import BatchNorm, Block, Encoder, Linear
from .recall import Recall

HEADS = (
    Head("softmax"),
    Head("power", p=2, eps=1e-3),
    Head("power", p=4, eps=1e-3),
    Head("power", p=6, eps=1e-3),
    Head("power", p=2, eps=1e-3, mean=True),
    Head("power", p=4, eps=1e-3, mean=True),
    Head("power", p=4, eps=1e-6, stable=True),
    Head("relu_softmax", eps=1e-5),
    Head("scaling"),
    Head("two_quad", eps=1e-5),
    Head("two_quad", c=5.0, eps=1e-5),
    Head("relu_squared"),
    Head("uniform"),
)
_SHAPES = ((1, 1, 4), (1, 3, 4), (2, 5, 8), (4, 9, 16))


def _rounded(t: Tensor) -> list[float]:
    """Inputs are exact in f32, so that a reader of either precision starts alike."""
    return [float(x) for x in t.flatten()]


def _draw(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float32).double()


def masks(n: int) -> dict[str, Tensor | None]:
    """No mask, causal, and padding after ⌈n/2⌉ keys; boolean [n, n], row by query."""
    keys = torch.arange(n)
    return {
        "none": None,
        "causal": keys[None, :] <= keys[:, None],
        "padding": (keys < -(-n // 2)).expand(n, n),
    }


def attention_cases() -> dict[str, Any]:
    """Every kind on every shape and mask; ``output`` is [heads, tokens, width], row-major."""
    rng = torch.Generator().manual_seed(20)
    cases = []
    for heads, n, d in _SHAPES:
        q, k, v = (_draw(rng, heads, n, d) for _ in range(3))
        for name, mask in masks(n).items():
            outputs = []
            for head in HEADS:
                out, _ = attend(head, q, k, v, mask)
                outputs.append({"head": head.to_json(), "output": _rounded(out)})
            if heads == 4:
                mixed = (HEADS[0], HEADS[1], HEADS[7], HEADS[8])
                out, _ = mixture(mixed, q, k, v, mask)
                outputs.append({"heads": [h.to_json() for h in mixed], "output": _rounded(out)})
            cases.append(
                {
                    "heads": heads,
                    "tokens": n,
                    "width": d,
                    "mask": name,
                    "visible": None if mask is None else mask.int().tolist(),
                    "q": _rounded(q),
                    "k": _rounded(k),
                    "v": _rounded(v),
                    "outputs": outputs,
                }
            )
    return {"source": "undertone-train golden", "cases": cases}


def recall_cases() -> dict[str, Any]:
    """The first three episodes of seed 7, for two sizes of the task."""
    sizes = (Recall(8, 8, 6), Recall(64, 16, 24))
    return {
        "seed": 7,
        "cases": [
            {
                "keys": task.keys,
                "values": task.values,
                "pairs": task.pairs,
                "episodes": [
                    {"tokens": tokens, "label": label}
                    for tokens, label in (task.episode(7, i) for i in range(3))
                ],
            }
            for task in sizes
        ],
    }


def read_model(folder: Path) -> Encoder:
    """A shipped folder as a float64 model of one replica; float weights and affine norms only."""
    from safetensors.torch import load_file

    from .export import _BERT, _VIT

    raw = json.loads((folder / "config.json").read_text())
    block = raw["undertone"]
    layers = tuple(
        Layer(
            tuple(Head.from_json(h) for h in layer["heads"]),
            layer["norm"],
            layer["activation"],
            layer.get("weights", "float"),
        )
        for layer in block["layers"]
    )
    vit = raw["model_type"] == "vit"
    common = {
        "model_type": raw["model_type"],
        "hidden_size": raw["hidden_size"],
        "num_attention_heads": raw["num_attention_heads"],
        "intermediate_size": raw["intermediate_size"],
        "layers": layers,
        "labels": tuple(raw["id2label"].values()),
        "layer_norm_eps": raw["layer_norm_eps"],
        "pooling": block["pooling"],
        "norm_position": block["norm_position"],
        "task": block.get("task", {}),
    }
    if vit:
        config = Config(
            **common,
            class_token=block["class_token"],
            image_size=raw["image_size"],
            patch_size=raw["patch_size"],
            num_channels=raw["num_channels"],
            pixel_mean=tuple(block["pixel_mean"]),
            pixel_std=tuple(block["pixel_std"]),
        )
    else:
        config = Config(
            **common,
            vocab_size=raw["vocab_size"],
            max_position_embeddings=raw["max_position_embeddings"],
        )
    model, found = Encoder(config, 1), load_file(folder / "model.safetensors")

    def take(parameter: Tensor, name: str) -> None:
        parameter.data.copy_(found.pop(name).reshape(parameter.shape))

    def linear(module: Linear, name: str) -> None:
        take(module.bias, f"{name}.bias")
        if module.bits == "float":
            take(module.weight, f"{name}.weight")
            return
        take(module.scale, f"{name}.weight_scale")
        bits = found.pop(f"{name}.weight_bits").int()
        signs = torch.stack([(bits >> i) & 1 for i in range(8)], -1).flatten(1)
        signs = signs[:, : module.weight.shape[-1]].float() * 2 - 1
        # Any weights with these signs about their row mean will do: binarizing finds the signs.
        count = signs.shape[1]
        positive = (signs > 0).sum(1, keepdim=True).float()
        module.weight.data.copy_(
            torch.where(signs > 0, (count - positive) / count, -positive / count)
        )

    def norms(module: Any, name: str) -> None:
        take(module.weight, f"{name}.weight")
        take(module.bias, f"{name}.bias")
        if isinstance(module, BatchNorm):
            module.running_var.fill_(1.0 - module.eps)

    if vit:
        linear(model.patches, "vit.embeddings.patch_embeddings.projection")
        take(model.positions, "vit.embeddings.position_embeddings")
        if config.class_token:
            take(model.class_token, "vit.embeddings.cls_token")
        norms(model.final_norm, "vit.layernorm")
    else:
        take(model.words, "embeddings.word_embeddings.weight")
        take(model.positions, "embeddings.position_embeddings.weight")
        take(model.token_types, "embeddings.token_type_embeddings.weight")
        norms(model.embedding_norm, "embeddings.LayerNorm")
    for index, layer in enumerate(model.blocks):
        assert isinstance(layer, Block)
        base = f"{'vit.encoder' if vit else 'encoder'}.layer.{index}"
        for own, theirs in (_VIT if vit else _BERT).items():
            if own == "key" and layer.shared:
                for leaf in [n for n in found if n.startswith(f"{base}.{theirs}.")]:
                    del found[leaf]
                continue
            module = getattr(layer, own)
            (linear if isinstance(module, Linear) else norms)(module, f"{base}.{theirs}")
        if layer.layer.activation == "quadratic":
            take(layer.quadratic.a, f"{base}.intermediate.quadratic.a")
            take(layer.quadratic.b, f"{base}.intermediate.quadratic.b")
        if hasattr(layer, "hash"):
            for leaf in ("vectors", "anchors", "mean"):
                if hasattr(layer.hash, leaf):
                    take(getattr(layer.hash, leaf), f"{base}.attention.hash.{leaf}")
        if hasattr(layer, "value_scale"):
            take(layer.value_scale, f"{base}.attention.value_scale")
    linear(model.classifier, "classifier")
    if found:
        raise ValueError(f"{folder}: unknown tensors {sorted(found)}")
    return model.double().eval()


@torch.no_grad()
def model_case(folder: Path) -> dict[str, Any]:
    """Logits in float64 of one shipped model on four inputs."""
    model = read_model(folder)
    config = model.config
    rng = torch.Generator().manual_seed(4)
    if config.model_type == "vit":
        size, channels = config.image_size, config.num_channels
        pixels = torch.randint(256, (4, channels, size, size), generator=rng)
        pixels[0] = 0
        mean = torch.tensor(config.pixel_mean, dtype=torch.float64).view(-1, 1, 1)
        std = torch.tensor(config.pixel_std, dtype=torch.float64).view(-1, 1, 1)
        x: Tensor = (pixels.double() / 255 - mean) / std
        inputs: dict[str, Any] = {"pixels": pixels.flatten(1).tolist()}
    else:
        task = Recall(**{k: config.task[k] for k in ("keys", "values", "pairs")})
        x, _ = task.episodes(7, 4)
        inputs = {"tokens": x.tolist()}
    logits, _ = model(x.unsqueeze(0))
    return inputs | {"logits": logits[0].tolist()}


def write_golden(out: Path, models: Path) -> None:
    """``attention.json``, ``recall.json`` and one file for each shipped model."""
    out.mkdir(parents=True, exist_ok=True)

    def write(name: str, content: Any) -> None:
        (out / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")

    write("attention.json", attention_cases())
    write("recall.json", recall_cases())
    if models.is_dir():
        for weights in sorted(models.rglob("model.safetensors")):
            write(f"{weights.parent.name}.json", model_case(weights.parent))
