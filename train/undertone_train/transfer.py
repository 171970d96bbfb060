"""Starting a model from another's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .binary import KernelHash, fit_hash
from .model import Block, Encoder, Linear
from .tasks import Task, generator


def load_matching(model: Encoder, path: Path, seeds: list[int]) -> set[str]:
    """Copies every tensor of ``path`` that ``model`` has too, seed by seed.

    The new model's own tensors (hashes, scales) keep their initial values; a tensor whose
    shape differs is an error. Returns the names that were copied.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train {path.parent.name} first")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    missing = [seed for seed in seeds if seed not in saved["seeds"]]
    if missing:
        raise ValueError(f"{path} has seeds {saved['seeds']}, wanted {seeds}")
    rows = [saved["seeds"].index(seed) for seed in seeds]
    own, copied = model.state_dict(), set()
    with torch.no_grad():
        for name, tensor in fused(saved["model"], own).items():
            if name in own:
                if own[name].shape[1:] != tensor.shape[1:]:
                    raise ValueError(f"{name}: {tuple(tensor.shape)} for {tuple(own[name].shape)}")
                own[name].copy_(tensor[rows])
                copied.add(name)
    return copied


def fused(saved: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The saved tensors with W₂W₁ for both matrices where ``own`` has an MLP of one matrix."""
    out = dict(saved)
    for name in saved:
        base, _, leaf = name.rpartition(".down.")
        if leaf == "weight" and name not in own:
            down, bias = out.pop(name), out.pop(f"{base}.down.bias")
            up = out[f"{base}.up.bias"]
            out[f"{base}.up.weight"] = down @ out[f"{base}.up.weight"]
            out[f"{base}.up.bias"] = (down @ up.unsqueeze(-1)).squeeze(-1) + bias
    return out


@torch.no_grad()
def prepare(model: Encoder, task: Task, seeds: list[int], copied: set[str]) -> None:
    """Fits what was not copied: hashes to the model's own activations, scales to weights."""
    for name, module in model.named_modules():
        fresh = f"{name}.scale" not in copied
        if isinstance(module, Linear) and module.bits != "float" and fresh:
            centred = module.weight - module.weight.mean(-1, keepdim=True)
            module.scale.copy_(centred.abs().mean(-1))
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    hashed = [
        isinstance(getattr(block, "hash", None), KernelHash)
        and f"blocks.{i}.hash.vectors" not in copied
        for i, block in enumerate(blocks)
    ]
    scaled = [
        hasattr(block, "value_scale") and f"blocks.{i}.value_scale" not in copied
        for i, block in enumerate(blocks)
    ]
    if not any(hashed) and not any(scaled):
        return
    spare = 1 << 19  # an epoch that no training reaches
    rng, device = generator(seeds[0], spare), next(model.parameters()).device
    drawn = [part[:64].to(device) for part in task.draw(seeds[0], spare)]
    x, _ = task.batch(*(part.expand(len(seeds), *part.shape) for part in drawn))
    h = model.embed(x)
    for block, hash_it, scale_it in zip(blocks, hashed, scaled, strict=True):
        q, _, v = block.project(h if block.post else block.norm1(h))
        if hash_it:
            assert isinstance(block.hash, KernelHash)
            fit_hash(block.hash, q, rng)
        if scale_it:
            block.value_scale.copy_(v.abs().mean((1, 3)).flatten(1))
        h, _, _ = block(h, None)
