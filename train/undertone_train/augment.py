"""Batched augmentation from drawn numbers: the same on every device, no hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DRAWS = 7
"""Uniform numbers that one image takes."""


@dataclass(frozen=True)
class Augment:
    """Shift by up to ``shift`` pixels, mirror, erase a box with probability ``erase``.

    With ``mixup`` above zero each batch is mixed with itself in reverse order: half of the
    batches in shares from Beta(mixup, mixup), the others by CutMix, a box of uniform area.
    """

    shift: int = 2
    flip: bool = True
    erase: float = 0.25
    mixup: float = 0.0


def augment(
    images: Tensor, index: Tensor, draws: Tensor, how: Augment, mean: Tensor, std: Tensor
) -> Tensor:
    """Picks ``index`` [R, B] from uint8 ``images`` [count, C, H, W], augments, normalises.

    ``draws`` [R, B, 7] are uniform in [0, 1). Pixels shifted in from outside are black; an
    erased box holds the mean. Returns float32 [R, B, C, H, W].
    """
    _, channels, height, width = images.shape
    device = images.device
    u = draws.unbind(-1)
    span = 2 * how.shift + 1
    dy = (u[0] * span).floor().long() - how.shift
    dx = (u[1] * span).floor().long() - how.shift
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    y = rows + dy[..., None]
    x = columns + dx[..., None]
    if how.flip:
        x = torch.where((u[2] < 0.5)[..., None], width - 1 - x, x)
    inside = ((y >= 0) & (y < height))[..., :, None] & ((x >= 0) & (x < width))[..., None, :]
    place = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
    plane = torch.arange(channels, device=device).view(channels, 1, 1) * (height * width)
    base = index[..., None, None, None] * (channels * height * width)
    flat = images.reshape(-1)
    pixels = flat[base + plane + place[..., None, :, :]].float() / 255.0
    pixels = torch.where(inside[..., None, :, :], pixels, torch.zeros_like(pixels))
    pixels = (pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    if how.erase > 0:
        area = (0.02 + 0.31 * u[4]) * (height * width)
        ratio = torch.exp((u[5] * 2 - 1) * 1.19)  # ln 3.3
        h = (area * ratio).sqrt().clamp(max=height)
        w = (area / ratio).sqrt().clamp(max=width)
        top, left = u[6] * (height - h), (u[3] / how.erase).clamp(max=1.0) * (width - w)
        in_rows = (rows >= top[..., None]) & (rows < (top + h)[..., None])
        in_columns = (columns >= left[..., None]) & (columns < (left + w)[..., None])
        erased = in_rows[..., :, None] & in_columns[..., None, :]
        erased = erased & (u[3] < how.erase)[..., None, None]
        pixels = torch.where(erased[..., None, :, :], torch.zeros_like(pixels), pixels)
    return pixels


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to normalised float32."""
    return (images.float() / 255.0 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def mix_draws(how: Augment, steps: int, rng: torch.Generator) -> Tensor:
    """[steps, 4]: the image's own share, 1 for CutMix, and the box's centre."""
    uniform = torch.rand(steps, 3, generator=rng)
    seed = int(torch.randint(1 << 62, (1,), generator=rng))
    beta = np.random.default_rng(seed).beta(how.mixup, how.mixup, steps)
    cut = uniform[:, 0] < 0.5
    area = torch.rand(steps, generator=rng)
    share = torch.where(cut, area, torch.from_numpy(beta).float())
    return torch.stack([share, cut.float(), uniform[:, 1], uniform[:, 2]], -1)


def mix(images: Tensor, labels: Tensor, draws: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mixes each image with one from the batch's other end.

    ``images`` [R, B, C, H, W], ``labels`` [R, B], ``draws`` [R, B, 4]; returns the images and
    the classes' shares [R, B, classes].
    """
    height, width = images.shape[-2:]
    share, cut, across, down = draws[:, 0].unbind(-1)
    side = (1 - share).sqrt()

    def inside(length: int, centre: Tensor) -> Tensor:
        at = torch.arange(length, device=images.device)
        low = (centre * length - side * length / 2).round().clamp(0, length)
        high = (centre * length + side * length / 2).round().clamp(0, length)
        return (at >= low[:, None]) & (at < high[:, None])

    box = (inside(height, down)[:, :, None] & inside(width, across)[:, None, :]).to(images.dtype)
    other = cut.view(-1, 1, 1) * box + (1 - cut.view(-1, 1, 1)) * (1 - share.view(-1, 1, 1))
    # A box that the border cuts is smaller: labels follow what is seen.
    seen = other.mean((-1, -2)).view(-1, 1, 1)
    other = other.view(-1, 1, 1, height, width)
    mixed = images * (1 - other) + images.flip(1) * other
    one = torch.nn.functional.one_hot(labels, classes).to(images.dtype)
    return mixed, one * (1 - seen) + one.flip(1) * seen
