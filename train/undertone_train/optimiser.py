"""AdamW over one flat buffer [R, n]: a handful of kernels a step, each replica clipped alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .recipes import Recipe


class Flat:
    """Moves a module's parameters into views of one buffer, and steps that buffer."""

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        self.parameters = list(module.parameters())
        device, replicas = self.parameters[0].device, self.parameters[0].shape[0]
        sizes = [p.numel() // replicas for p in self.parameters]
        self.values = torch.empty(replicas, sum(sizes), device=device)
        decayed = torch.zeros(sum(sizes), device=device)
        at = 0
        for parameter, size in zip(self.parameters, sizes, strict=True):
            view = self.values[:, at : at + size].view(parameter.shape)
            view.copy_(parameter.data)
            parameter.data = view
            decayed[at : at + size] = float(parameter.dim() == 3)
            at += size
        self.first = torch.zeros_like(self.values)
        self.second = torch.zeros_like(self.values)
        self.decayed = decayed
        self.table = schedule(recipe).to(device)

    def step(self, loss: Tensor, at: Tensor) -> None:
        """One update from the sum of the replicas' losses; ``at`` [1] is the step's number."""
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        pieces = [
            torch.zeros_like(p).flatten(1) if g is None else g.flatten(1)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        with torch.no_grad():
            update(
                self.values,
                self.first,
                self.second,
                torch.cat(pieces, 1),
                self.decayed,
                self.table.index_select(0, at)[0],
                self.recipe,
            )


def update(
    values: Tensor,
    first: Tensor,
    second: Tensor,
    gradient: Tensor,
    decayed: Tensor,
    hyper: Tensor,
    recipe: Recipe,
) -> None:
    """AdamW in place; ``hyper`` holds the rate and the two bias corrections."""
    rate, correct1, correct2 = hyper[0], hyper[1], hyper[2]
    norm = gradient.norm(dim=1, keepdim=True)
    gradient = gradient * (recipe.clip / (norm + 1e-6)).clamp(max=1.0)
    gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    first.lerp_(gradient, 1 - recipe.betas[0])
    second.mul_(recipe.betas[1]).addcmul_(gradient, gradient, value=1 - recipe.betas[1])
    direction = (first / correct1) / ((second / correct2).sqrt() + 1e-8)
    values.sub_(rate * (direction + recipe.decay * decayed * values))


def schedule(recipe: Recipe) -> Tensor:
    """[steps, 3]: linear warm-up then cosine to zero, and Adam's bias corrections."""
    total = recipe.epochs * recipe.steps
    warm = max(1, int(recipe.warmup * total))
    rows = []
    for t in range(total):
        if t < warm:
            factor = (t + 1) / warm
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (t - warm) / max(1, total - warm)))
        b1, b2 = recipe.betas
        rows.append((recipe.rate * factor, 1 - b1 ** (t + 1), 1 - b2 ** (t + 1)))
    return torch.tensor(rows, dtype=torch.float32)
