"""Accuracy in float32, and the ranges that encrypted and fixed-point worlds must cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attention import KINDS, scores, weights
from .export import load_run
from .model import Block, Encoder
from .recipes import Recipe
from .tasks import Sources, Task
from .train import evaluate


@torch.no_grad()
def ranges(model: Encoder, batches: list[tuple[Tensor, Tensor]]) -> list[dict[str, list[float]]]:
    """Per layer of replica 0, [low, high] of scores, row sums, MLP inputs and the stream."""
    found: list[dict[str, list[float]]] = [{} for _ in model.blocks]

    def widen(layer: int, site: str, t: Tensor) -> None:
        low, high = float(t[0].min()), float(t[0].max())
        before = found[layer].get(site, [low, high])
        found[layer][site] = [min(before[0], low), max(before[1], high)]

    for x, _ in batches:
        h = model.embed(x.unsqueeze(0).expand(model.replicas, *x.shape))
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            widen(index, "input", h)
            normed = h if block.post else block.norm1(h)
            q, k, _ = block.project(normed)
            s = scores(q, k)
            widen(index, "scores", s)
            for number, head in enumerate(block.layer.heads):
                if head.kind in KINDS:
                    _, denominator = weights(head, s[:, :, number])
                    if isinstance(denominator, Tensor):
                        widen(index, f"row_sum.{head.kind}", denominator)
            attended, _ = block.attention(normed, None)
            after = h + attended
            after = block.norm1(after) if block.post else after
            widen(index, "mlp_input", after if block.post else block.norm2(after))
            widen(index, "activation_input", block.up(after if block.post else block.norm2(after)))
            h, _, _ = block(h, None)
    return [{k: [round(v, 5) for v in pair] for k, pair in layer.items()} for layer in found]


def measure(recipe: Recipe, runs: Path, sources: Sources, device: torch.device) -> dict[str, Any]:
    """Evaluates every seed of a finished run in float32 and writes ``evaluation.json``."""
    saved = torch.load(runs / recipe.name / "final.pt", map_location="cpu", weights_only=True)
    model = load_run(recipe, runs, saved["seeds"]).to(device)
    task: Task = sources.open(recipe, device)
    accuracy = evaluate(model, task)
    result = {
        "seeds": saved["seeds"],
        "accuracy": accuracy,
        "ranges": ranges(load_run(recipe, runs, saved["seeds"][:1]).to(device), task.calibration()),
    }
    (runs / recipe.name / "evaluation.json").write_text(json.dumps(result))
    return result
