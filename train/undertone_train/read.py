"""From a folder of ``docs/model-format.md`` back to a model, and to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .attention import Head
from .config import Config, Layer
from .export import BERT_NAMES, VIT_NAMES
from .model import BatchNorm, Block, Encoder, Linear
from .recipes import Recipe
from .train import save


def read_model(folder: Path) -> Encoder:
    """A shipped folder as a float64 model of one replica; float weights and affine norms only."""
    raw = json.loads((folder / "config.json").read_text())
    block = raw["undertone"]
    layers = tuple(
        Layer(
            tuple(Head.from_json(h) for h in layer["heads"]),
            layer["norm"],
            layer["activation"],
            layer.get("mlp", "full"),
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
        # Two scales apart they have about the size of the weights that were binarized, so that a
        # run which starts here can still turn them.
        count = signs.shape[1]
        positive = (signs > 0).sum(1, keepdim=True).float() / count
        apart = 2 * module.scale.data[0].abs().unsqueeze(1).float()
        module.weight.data.copy_(torch.where(signs > 0, 1 - positive, -positive) * apart)

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
        for own, theirs in (VIT_NAMES if vit else BERT_NAMES).items():
            if own == "key" and layer.shared:
                for leaf in [n for n in found if n.startswith(f"{base}.{theirs}.")]:
                    del found[leaf]
                continue
            if own == "down" and layer.layer.mlp == "fused":
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


def adopt(recipe: Recipe, runs: Path, folder: Path, seed: int) -> None:
    """Makes a model folder the finished run of its recipe, as if ``seed`` had led to it.

    What starts from a recipe or is taught by it then needs no training of it. A run that is there
    already must have these weights.
    """
    model = read_model(folder).float()
    if model.config != recipe.config:
        raise ValueError(f"{folder} has another shape than the recipe {recipe.name}")
    final = runs / recipe.name / "final.pt"
    if final.exists():
        saved = torch.load(final, map_location="cpu", weights_only=True)
        own = model.state_dict()
        row = saved["seeds"].index(seed) if seed in saved["seeds"] else None
        if row is None or any(
            not torch.equal(own[n][0], t[row]) for n, t in saved["model"].items()
        ):
            raise ValueError(
                f"{final} is another model than {folder} (or of another seed than {seed}): "
                "name another folder with --runs"
            )
        return
    save(final, {"model": model.state_dict(), "seeds": [seed]})
