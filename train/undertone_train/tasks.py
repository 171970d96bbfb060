"""What a training step draws and what an evaluation sees, for each task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .augment import DRAWS, augment, mix, mix_draws, normalise
from .data import CIFAR_LABELS, Split, fashion_mnist, image_folder
from .recipes import Recipe

EVALUATION_SEED = 7
EVALUATION_EPISODES = 4096


def generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of one epoch of one seed: on the CPU, so alike on every machine."""
    return torch.Generator().manual_seed((seed << 20) + epoch + 1)


class ImageTask:
    """Images in device memory, augmented there."""

    def __init__(self, recipe: Recipe, data: Path, device: torch.device) -> None:
        self.recipe = recipe
        if recipe.task == "fmnist":
            train, test = fashion_mnist(data)
        else:
            train, test = image_folder(data, CIFAR_LABELS, recipe.config.image_size)
        self.train = Split(train.images.to(device), train.labels.to(device))
        self.test = Split(test.images.to(device), test.labels.to(device))
        self.mean = torch.tensor(recipe.config.pixel_mean, device=device)
        self.std = torch.tensor(recipe.config.pixel_std, device=device)

    def draw(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Indices [steps·batch] and augmentation draws of an epoch."""
        rng, count = generator(seed, epoch), self.recipe.steps * self.recipe.batch
        order = torch.randperm(len(self.train.labels), generator=rng)
        order = order.repeat(-(-count // len(order)))[:count]
        draws = torch.rand(count, DRAWS, generator=rng)
        if self.recipe.augment.mixup:
            mixing = mix_draws(self.recipe.augment, self.recipe.steps, rng)
            draws = torch.cat([draws, mixing.repeat_interleave(self.recipe.batch, 0)], -1)
        return order, draws

    def batch(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [R, B, C, H, W] and labels [R, B] from drawn slices.

        Of mixed images the labels are shares [R, B, classes].
        """
        how = self.recipe.augment
        x = augment(self.train.images, first, second[..., :DRAWS], how, self.mean, self.std)
        y = self.train.labels[first]
        if how.mixup:
            return mix(x, y, second[..., DRAWS:], len(self.recipe.config.labels))
        return x, y

    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """The first 10,000 training images, not augmented."""
        images, labels = self.train.images[:10_000], self.train.labels[:10_000]
        pieces = zip(images.split(1000), labels.split(1000), strict=True)
        return [(normalise(part, self.mean, self.std), known) for part, known in pieces]

    def evaluation(self, chunk: int = 1000) -> list[tuple[Tensor, Tensor]]:
        """The whole test set, in pieces."""
        pieces = zip(self.test.images.split(chunk), self.test.labels.split(chunk), strict=True)
        return [(normalise(images, self.mean, self.std), labels) for images, labels in pieces]


class RecallTask:
    """Fresh episodes every epoch."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        tokens, labels = recipe.recall.episodes(EVALUATION_SEED, EVALUATION_EPISODES)
        self.tokens, self.labels = tokens.to(device), labels.to(device)

    def draw(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Tokens [steps·batch, length] and labels of an epoch."""
        count = self.recipe.steps * self.recipe.batch
        return self.recipe.recall.batch(generator(seed, epoch), count)

    def batch(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Drawn slices are the batch already."""
        return first, second

    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """4096 episodes that neither training nor evaluation uses."""
        rng = generator(0, 1 << 19)
        return [tuple(t.to(self.device) for t in self.recipe.recall.batch(rng, 4096))]  # type: ignore[list-item]

    def evaluation(self, chunk: int = 1024) -> list[tuple[Tensor, Tensor]]:
        """The 4096 episodes of seed 7, in pieces."""
        return list(zip(self.tokens.split(chunk), self.labels.split(chunk), strict=True))


Task = ImageTask | RecallTask


@dataclass(frozen=True)
class Sources:
    """Where data lies, by task."""

    folders: dict[str, Path]

    def open(self, recipe: Recipe, device: torch.device) -> Task:
        """The task of a recipe, its data loaded."""
        if recipe.task == "recall":
            return RecallTask(recipe, device)
        if recipe.task not in self.folders:
            raise ValueError(f"{recipe.name} needs data: pass --{recipe.task} PATH")
        return ImageTask(recipe, self.folders[recipe.task], device)
