"""Fashion-MNIST (IDX) and CIFAR-10 (class folders, also inside a zip), whole in memory."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_LIMIT = 1 << 28  # bytes that one decompressed IDX file may have


class DataError(ValueError):
    """A data file is missing or malformed."""


@dataclass(frozen=True)
class Split:
    """``images`` uint8 [count, C, H, W] and ``labels`` int64 [count]."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images for {len(self.labels)} labels")


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes, plain or gzipped, in its own shape."""
    if not path.exists():
        raise DataError(f"{path} is missing")
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(raw)) as file:
            raw = file.read(_LIMIT + 1)
    if len(raw) > _LIMIT:
        raise DataError(f"{path} holds more than {_LIMIT} bytes")
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is no IDX file of unsigned bytes")
    dims = raw[3]
    if len(raw) < 4 + 4 * dims:
        raise DataError(f"{path} is truncated")
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims)
    if body.size != int(np.prod(shape)):
        raise DataError(f"{path} announces {shape}, holds {body.size} bytes")
    return body.reshape(shape)


def fashion_mnist(folder: Path) -> tuple[Split, Split]:
    """Train and test split from the four files ``*-idx?-ubyte[.gz]``."""

    def find(stem: str) -> np.ndarray:
        for name in (f"{stem}.gz", stem):
            if (folder / name).exists():
                return read_idx(folder / name)
        raise DataError(f"{folder} holds neither {stem}.gz nor {stem}")

    def split(prefix: str) -> Split:
        images = torch.from_numpy(find(f"{prefix}-images-idx3-ubyte").copy()).unsqueeze(1)
        labels = torch.from_numpy(find(f"{prefix}-labels-idx1-ubyte").astype(np.int64))
        return Split(images, labels)

    return split("train"), split("t10k")


def _walk(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
                yield path.relative_to(source).as_posix(), path.read_bytes()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if name.lower().endswith((".png", ".jpg", ".jpeg")):
                    yield name, archive.read(name)
    else:
        raise DataError(f"{source} is neither a folder nor a zip file")


def image_folder(source: Path, labels: tuple[str, ...], size: int) -> tuple[Split, Split]:
    """Colour images in ``…/train/<label>/`` and ``…/test/<label>/``, in a folder or zip."""
    found: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    for name, raw in _walk(source):
        parts = name.split("/")
        part = next((p for p in parts if p in found), None)
        if part is None or len(parts) < 2 or parts[-2] not in labels:
            continue
        image = Image.open(io.BytesIO(raw)).convert("RGB")
        if image.size != (size, size):
            raise DataError(f"{name} is {image.size}, wanted {size}×{size}")
        found[part][0].append(np.asarray(image).transpose(2, 0, 1))
        found[part][1].append(labels.index(parts[-2]))
    for part, (images, _) in found.items():
        if not images:
            raise DataError(f"{source} holds no {part}/<label>/ images of {labels}")
    train, test = (
        Split(torch.from_numpy(np.stack(images)), torch.tensor(found_labels))
        for images, found_labels in (found["train"], found["test"])
    )
    return train, test
