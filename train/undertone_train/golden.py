"""Golden files: what PyTorch computes in float64, for Rust to be held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attention import Head, attend, mixture
from .read import read_model
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
