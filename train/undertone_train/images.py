"""A few test images as PNG, so that a fresh clone has something to classify."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .data import FASHION_LABELS, fashion_mnist


def write_images(data: Path, out: Path, count: int) -> None:
    """The first ``count / 10`` test images of each class: gray PNG named by index and label."""
    _, test = fashion_mnist(data)
    out.mkdir(parents=True, exist_ok=True)
    taken = dict.fromkeys(range(10), 0)
    for index, label in enumerate(test.labels.tolist()):
        if taken[label] >= -(-count // 10) or sum(taken.values()) >= count:
            continue
        taken[label] += 1
        slug = FASHION_LABELS[label].lower().replace("/", "-").replace(" ", "-")
        name = f"{index:04}-{slug}.png"
        Image.fromarray(test.images[index, 0].numpy()).save(out / name, optimize=True)
