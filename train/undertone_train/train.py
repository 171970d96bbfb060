"""The training loop: seeds side by side, resumable, the whole step in one CUDA graph."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import Encoder, initialise
from .optimiser import Flat
from .recipes import RECIPES, Recipe, replace
from .tasks import Sources, Task
from .transfer import load_matching, prepare


@dataclass
class Options:
    """How a run is carried out; none of it changes what is learnt, except rounding."""

    out: Path
    device: torch.device
    compile: bool = False
    deadline: float | None = None
    """Seconds after which the run stops at the next epoch's end, to be resumed."""


@torch.no_grad()
def evaluate(model: Encoder, task: Task) -> list[float]:
    """Percent correct of each replica on the evaluation set."""
    model.eval()
    correct = torch.zeros(model.replicas, device=next(model.parameters()).device)
    count = 0
    for x, y in task.evaluation():
        logits, _ = model(x.unsqueeze(0).expand(model.replicas, *x.shape))
        correct += (logits.argmax(-1) == y).sum(-1)
        count += len(y)
    model.train()
    return [round(100 * float(c) / count, 4) for c in correct]


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)


def identity(recipe: Recipe, seeds: list[int]) -> str:
    """What must agree for a checkpoint to be resumed."""
    return json.dumps([asdict(replace(recipe, made_by="")), seeds], sort_keys=True, default=str)


class Trainer:
    """One recipe, several seeds."""

    def __init__(self, recipe: Recipe, seeds: list[int], sources: Sources, options: Options):
        self.recipe, self.seeds, self.options = recipe, seeds, options
        self.folder = options.out / recipe.name
        device = options.device
        self.task = sources.open(recipe, device)
        self.model = Encoder(recipe.config, len(seeds), recipe.candidates, recipe.linearize)
        self.model.regularise(recipe.attention_dropout, recipe.drop_path)
        initialise(self.model, seeds)
        self.teacher: Encoder | None = None
        copied: set[str] = set()
        if recipe.start:
            copied = load_matching(self.model, options.out / recipe.start / "final.pt", seeds)
        self.model.to(device).train()
        prepare(self.model, self.task, seeds, copied)
        if recipe.teacher:
            self.teacher = Encoder(RECIPES[recipe.teacher].config, len(seeds))
            load_matching(self.teacher, options.out / recipe.teacher / "final.pt", seeds)
            self.teacher.to(device).eval().requires_grad_(False)
        self.flat = Flat(self.model, recipe)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.total_loss = torch.zeros(len(seeds), device=device)
        self.first, self.second = self._draw(0)
        self.epoch = 0

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The epoch's draws of every seed, [steps, R, B, …] on the device."""
        drawn = [self.task.draw(seed, epoch) for seed in self.seeds]

        def stack(parts: list[Tensor]) -> Tensor:
            t = torch.stack(parts).unflatten(1, (self.recipe.steps, self.recipe.batch))
            return t.transpose(0, 1).contiguous().to(self.options.device)

        return stack([a for a, _ in drawn]), stack([b for _, b in drawn])

    def losses(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of each replica [R] on the drawn batch."""
        x, y = self.task.batch(first, second)
        logits, aux = self.model(x)
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            y.flatten(0, 1),
            reduction="none",
            label_smoothing=self.recipe.smoothing,
        )
        loss = loss.view(y.shape[:2]).mean(1)
        if self.teacher is not None:
            with torch.no_grad():
                taught, seen = self.teacher(x)
                target = torch.softmax(taught, -1)
            soft = -(target * torch.log_softmax(logits, -1)).sum(-1).mean(1)
            loss = self.recipe.label_share * loss + (1 - self.recipe.label_share) * soft
            if self.recipe.token_weight:
                apart = (aux.tokens - seen.tokens).square().flatten(1).mean(1)
                loss = loss + self.recipe.token_weight * apart
        if self.recipe.row_weight:
            loss = loss + self.recipe.row_weight * aux.row_sums
        if self.recipe.activation_weight:
            loss = loss + self.recipe.activation_weight * aux.activations
        if self.recipe.blend_weight:
            loss = loss + self.recipe.blend_weight * self.model.blend_cost()
        return loss

    def _one_step(self, losses: Callable[[Tensor, Tensor], Tensor]) -> None:
        within = self.step % self.recipe.steps
        first = self.first.index_select(0, within)[0]
        second = self.second.index_select(0, within)[0]
        loss = losses(first, second)
        self.flat.step(loss.sum(), self.step)
        self.model.project_blends()
        self.total_loss += loss.detach()
        self.step += 1

    def _runner(self) -> Callable[[], None]:
        """The step as a plain call, or captured in a CUDA graph on a GPU."""
        losses = self.losses
        if self.options.compile:
            losses = torch.compile(losses, dynamic=False)
        if self.options.device.type != "cuda":
            return lambda: self._one_step(losses)
        kept = self._state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._one_step(losses)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._one_step(losses)
        self._restore(kept)
        return graph.replay

    def _state(self) -> dict[str, Any]:
        buffers = {k: b.clone() for k, b in self.model.named_buffers()}
        flat = self.flat
        return {
            "values": flat.values.clone(),
            "first": flat.first.clone(),
            "second": flat.second.clone(),
            "buffers": buffers,
            "step": self.step.clone(),
            "total_loss": self.total_loss.clone(),
        }

    @torch.no_grad()
    def _restore(self, state: dict[str, Any]) -> None:
        self.flat.values.copy_(state["values"])
        self.flat.first.copy_(state["first"])
        self.flat.second.copy_(state["second"])
        self.step.copy_(state["step"])
        self.total_loss.copy_(state["total_loss"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state["buffers"][name])

    def resume(self) -> None:
        """Continues from a checkpoint of the same recipe and seeds, where there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.options.device, weights_only=True)
        if state["identity"] != identity(self.recipe, self.seeds):
            raise ValueError(
                f"{path} belongs to another recipe or other seeds: remove it to start anew"
            )
        self._restore(state)
        self.epoch = int(state["epoch"])

    def accuracy(self) -> list[float]:
        """Percent correct of each seed on the evaluation set, as the model is now."""
        return evaluate(self.model, self.task)

    def log(self, entry: dict[str, Any]) -> None:
        """Appends one JSON line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(self.recipe.name, json.dumps(entry), file=sys.stderr, flush=True)

    def run(self) -> bool:
        """Trains to the last epoch; false where the deadline came first."""
        began = time.monotonic()
        self.resume()
        runner = self._runner()
        recipe = self.recipe
        if self.epoch == 0:
            self.log(
                {
                    "recipe": recipe.name,
                    "seeds": self.seeds,
                    "epochs": recipe.epochs,
                    "parameters": self.flat.values.shape[1],
                    "torch": torch.__version__,
                    "ready_s": round(time.monotonic() - began, 1),
                }
            )
        done = 0
        while self.epoch < recipe.epochs:
            first, second = self._draw(self.epoch)
            self.first.copy_(first)
            self.second.copy_(second)
            # Dropout draws from torch's own numbers: they too must not depend on interruptions.
            torch.manual_seed((self.seeds[0] << 20) + self.epoch + 1)
            for _ in range(recipe.steps):
                runner()
            self.epoch += 1
            done += 1
            last = self.epoch == recipe.epochs
            late = (
                self.options.deadline is not None
                and time.monotonic() - began > self.options.deadline
            )
            if last or late or self.epoch % recipe.every == 0:
                mean = self.total_loss / (recipe.steps * min(done, recipe.every))
                self.total_loss.zero_()
                self.log(
                    {
                        "epoch": self.epoch,
                        "loss": [round(float(x), 5) for x in mean],
                        "accuracy": evaluate(self.model, self.task),
                        "seconds": round(time.monotonic() - began, 1),
                    }
                )
                done = 0
                state = self._state()
                state |= {"epoch": self.epoch, "identity": identity(recipe, self.seeds)}
                save(self.folder / "checkpoint.pt", state)
            if late and not last:
                return False
        save(self.folder / "final.pt", {"model": self.model.state_dict(), "seeds": self.seeds})
        return True
