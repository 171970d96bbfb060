"""What a model costs, asked of ``undertone price``: the only place that knows what worlds cost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as encode

from .config import Config
from .export import load_run, tensors
from .recipes import Recipe, replace
from .tasks import ImageTask, Task

CALIBRATION = 256
"""Training images that ranges are measured on."""


class SearchError(ValueError):
    """What cannot be searched, and why."""


def calibration_images(task: Task, folder: Path) -> Path | None:
    """The first training images as class folders; none for a task that Rust generates itself."""
    if not isinstance(task, ImageTask):
        return None
    if not folder.exists():
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        images, labels = task.train.images[:CALIBRATION], task.train.labels[:CALIBRATION]
        for number, (image, label) in enumerate(zip(images.cpu().numpy(), labels, strict=True)):
            (partial / f"{int(label)}").mkdir(parents=True, exist_ok=True)
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            Image.fromarray(pixels).save(partial / f"{int(label)}" / f"{number:05}.png")
        os.replace(partial, folder)
    return folder


@dataclass
class Prices:
    """Prices of one search. They are remembered in its folder, with the speed of the machine that
    they are for, so that a search that was interrupted goes on with the same ones."""

    program: str
    cost: str
    """A name of ``undertone price``: mpc-wan, energy, …"""
    arguments: Sequence[str]
    """What ``undertone price`` gets beside model and cost."""
    folder: Path
    """The search's folder."""
    images: Path | None
    """Class folders to calibrate on."""
    unit: str = ""
    """seconds, bytes, pj or count, once a price is known."""
    rates: str | None = None
    known: dict[str, float] = field(default_factory=dict)

    def open(self, teacher: Path) -> None:
        """Takes up what an earlier call of the same search remembered.

        ``teacher`` is the run's weights: prices of another model are refused.
        """
        self.teacher = fingerprint(teacher)
        if not self.file.exists():
            return
        saved = json.loads(self.file.read_text())
        if saved["teacher"] != self.teacher:
            raise SearchError(
                f"{self.file} holds prices of another model: "
                "name another folder with --runs, or remove it"
            )
        if saved["arguments"] != list(self.arguments):
            raise SearchError(
                f"{self.file} holds prices for {' '.join(saved['arguments']) or 'no options'}: "
                "name another folder with --runs, or remove it"
            )
        self.unit, self.rates, self.known = saved["unit"], saved["rates"], saved["known"]

    @property
    def file(self) -> Path:
        """Where prices are remembered, a file a cost."""
        return self.folder / f"prices-{self.cost}.json"

    def remember(self) -> None:
        """Writes what is known, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "cost": self.cost,
            "arguments": list(self.arguments),
            "teacher": self.teacher,
            "unit": self.unit,
            "rates": self.rates,
            "known": self.known,
        }
        partial = self.file.with_suffix(".part")
        partial.write_text(json.dumps(state, indent=1) + "\n")
        os.replace(partial, self.file)

    def of(self, recipe: Recipe, config: Config, runs: Path) -> float:
        """Price of the weights of a finished run with the heads and MLPs of ``config``."""
        layers = json.dumps(config.to_json()["undertone"]["layers"])
        key = hashlib.sha256(f"{recipe.name} {layers}".encode()).hexdigest()
        if key not in self.known:
            self.known[key] = self.model(write(recipe, config, runs, self.folder / "priced"))
            self.remember()
        return self.known[key]

    def model(self, folder: Path) -> float:
        """Calibrates a model folder and asks its price."""
        calibrate = ["calibrate", "--model", str(folder), "--limit", str(CALIBRATION), "--json"]
        if self.images is not None:
            calibrate += ["--data", str(self.images)]
        self.ask(calibrate)
        price = ["price", "--model", str(folder), "--cost", self.cost, "--json", *self.arguments]
        if self.rates is not None and not any(a.startswith("--rates") for a in self.arguments):
            price.append(f"--rates={self.rates}")
        answer: dict[str, Any] = json.loads(self.ask(price))
        self.unit, self.rates = answer["unit"], answer.get("rates")
        return float(answer["value"])

    def ask(self, arguments: list[str]) -> str:
        """Standard output of one run of the program."""
        if shutil.which(self.program) is None:
            raise SearchError(
                f"{self.program} is not there: build it with cargo build --release, "
                "or name it with --undertone"
            )
        done = subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise SearchError(f"undertone {arguments[0]}: {said.removeprefix('error: ')}")
        return done.stdout


@torch.no_grad()
def write(recipe: Recipe, config: Config, runs: Path, folder: Path) -> Path:
    """A model folder with the weights of a run and the heads and MLPs of ``config``."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = torch.load(runs / recipe.name / "final.pt", map_location="cpu", weights_only=True)
    model = load_run(replace(recipe, config=config), runs, saved["seeds"][:1])
    (folder / "model.safetensors").write_bytes(encode(tensors(model, 0)))
    text = json.dumps(config.to_json(), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n")
    return folder


def fingerprint(final: Path) -> str:
    """A digest of a run's weights."""
    saved = torch.load(final, map_location="cpu", weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(saved["model"].items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["Prices", "SearchError", "calibration_images", "fingerprint", "write"]
