"""From a finished run to a folder of ``docs/model-format.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .binary import KernelHash, SimHash, pack_signs
from .model import BatchNorm, Block, Encoder, LayerNorm, Linear
from .recipes import Recipe
from .transfer import load_matching

VIT_NAMES = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "out": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "up": "intermediate.dense",
    "down": "output.dense",
}
BERT_NAMES = VIT_NAMES | {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}


def _norm(out: dict[str, Tensor], name: str, module: LayerNorm | BatchNorm, r: int) -> None:
    weight, bias = (
        module.folded() if isinstance(module, BatchNorm) else (module.weight, module.bias)
    )
    out[f"{name}.weight"], out[f"{name}.bias"] = weight[r], bias[r]


def _linear(out: dict[str, Tensor], name: str, module: Linear, r: int) -> None:
    if module.bits == "float":
        out[f"{name}.weight"] = module.weight[r]
    else:
        centred = module.weight[r] - module.weight[r].mean(-1, keepdim=True)
        out[f"{name}.weight_bits"] = pack_signs(centred)
        out[f"{name}.weight_scale"] = module.scale[r]
    out[f"{name}.bias"] = module.bias[r]


def _block(out: dict[str, Tensor], base: str, names: dict[str, str], block: Block, r: int) -> None:
    for own, theirs in names.items():
        if own == "down" and block.layer.mlp == "fused":
            continue
        module = getattr(block, "query" if own == "key" and block.shared else own)
        if isinstance(module, Linear):
            _linear(out, f"{base}.{theirs}", module, r)
        else:
            _norm(out, f"{base}.{theirs}", module, r)
    if block.layer.activation == "quadratic":
        out[f"{base}.intermediate.quadratic.a"] = block.quadratic.a[r]
        out[f"{base}.intermediate.quadratic.b"] = block.quadratic.b[r]
    if hasattr(block, "hash"):
        hashed = block.hash
        out[f"{base}.attention.hash.vectors"] = hashed.vectors[r]
        if isinstance(hashed, KernelHash):
            out[f"{base}.attention.hash.anchors"] = hashed.anchors[r]
            out[f"{base}.attention.hash.mean"] = hashed.mean[r]
        else:
            assert isinstance(hashed, SimHash)
    if hasattr(block, "value_scale"):
        out[f"{base}.attention.value_scale"] = block.value_scale[r]


@torch.no_grad()
def tensors(model: Encoder, r: int) -> dict[str, Tensor]:
    """Replica ``r`` under the names of ``docs/model-format.md``: f32, packed signs as u8."""
    config, out = model.config, dict[str, Tensor]()
    if config.model_type == "vit":
        stem = "vit.embeddings.patch_embeddings.projection"
        patch = config.patch_size
        out[f"{stem}.weight"] = model.patches.weight[r].view(
            config.hidden_size, config.num_channels, patch, patch
        )
        out[f"{stem}.bias"] = model.patches.bias[r]
        out["vit.embeddings.position_embeddings"] = model.positions[r : r + 1]
        if config.class_token:
            out["vit.embeddings.cls_token"] = model.class_token[r : r + 1]
        layers, names = "vit.encoder.layer", VIT_NAMES
        _norm(out, "vit.layernorm", model.final_norm, r)
    else:
        out["embeddings.word_embeddings.weight"] = model.words[r]
        out["embeddings.position_embeddings.weight"] = model.positions[r]
        out["embeddings.token_type_embeddings.weight"] = model.token_types[r]
        _norm(out, "embeddings.LayerNorm", model.embedding_norm, r)
        layers, names = "encoder.layer", BERT_NAMES
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        _block(out, f"{layers}.{index}", names, block, r)
    _linear(out, "classifier", model.classifier, r)
    return {k: t.detach().cpu().contiguous().clone() for k, t in out.items()}


def load_run(recipe: Recipe, runs: Path, seeds: list[int]) -> Encoder:
    """The trained model of some seeds, in evaluation mode on the CPU."""
    model = Encoder(recipe.config, len(seeds))
    load_matching(model, runs / recipe.name / "final.pt", seeds)
    return model.eval()


def history(recipe: Recipe, runs: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and epochs of the run's log; the last head counts where a run began anew."""
    head: dict[str, Any] = {}
    epochs: dict[int, dict[str, Any]] = {}
    for line in (runs / recipe.name / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "recipe" in entry:
            head = entry
        else:
            epochs[entry["epoch"]] = entry
    return head, [epochs[e] for e in sorted(epochs)]


def export(recipe: Recipe, runs: Path, models: Path, seed: int) -> Path:
    """Writes config.json, model.safetensors and training.json of one seed's model."""
    head, epochs = history(recipe, runs)
    model = load_run(recipe, runs, [seed])
    folder = models / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    fresh = save(tensors(model, 0))
    weights, config = folder / "model.safetensors", folder / "config.json"
    # The same weights again: config.json may hold ranges that were calibrated since.
    if not (config.exists() and weights.exists() and weights.read_bytes() == fresh):
        weights.write_bytes(fresh)
        text = json.dumps(recipe.config.to_json(), indent=2, ensure_ascii=False)
        config.write_text(text + "\n")
    checked = runs / recipe.name / "evaluation.json"
    evaluation = json.loads(checked.read_text()) if checked.exists() else None
    flag = "" if recipe.task == "recall" else f" --{recipe.task} DIR"
    epochs_flag = "" if head["epochs"] == recipe.epochs else f" --epochs {head['epochs']}"
    needed = " ".join(name for name in dict.fromkeys([recipe.start, recipe.teacher]) if name)
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "seed": seed,
        "command": recipe.made_by
        or f"undertone-train run {recipe.name} --seeds "
        f"{','.join(map(str, head['seeds']))}{epochs_flag}{flag}",
        "parameters": head["parameters"],
        "epochs": head["epochs"],
        "steps_per_epoch": recipe.steps,
        "batch": recipe.batch,
        "torch": head["torch"],
        "accuracy_percent": dict(
            zip(
                map(str, head["seeds"]),
                evaluation["accuracy"] if evaluation else epochs[-1]["accuracy"],
                strict=True,
            )
        ),
        "evaluated_in": "float32" if evaluation else "the training run's TF32",
        "history": [
            {"epoch": e["epoch"], "loss": e["loss"], "accuracy_percent": e["accuracy"]}
            for e in epochs
        ],
    }
    if needed:
        report["needs_runs"] = needed.split()
    if evaluation and "ranges" in evaluation:
        report["ranges"] = evaluation["ranges"]
    text = json.dumps(report, indent=1)
    (folder / "training.json").write_text(_compact(text) + "\n")
    return folder


def _compact(text: str) -> str:
    """Puts innermost lists and objects on one line each."""
    import re

    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: re.sub(r"\s*\n\s*", " ", m.group()), text)
