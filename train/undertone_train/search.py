"""MPCViT's search over any kinds and any cost that ``undertone plan`` knows.

Zeng et al. 2023 (MPCViT): train a model whose heads are blends, keep the dear kind
where its share is largest, retrain from the softmax teacher. Here the number of heads that keep
it follows from a share μ, as published, or from a budget that ``undertone plan`` is asked about.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .attention import Head
from .config import Config
from .export import load_run, tensors
from .recipes import RECIPES, Recipe, replace
from .train import Trainer

Assignment = tuple[tuple[int, ...], ...]
"""The candidate's index of each head, a tuple a layer; in a search that also removes GELUs a last
entry, 1 where the layer keeps it."""
Pricer = Callable[[Assignment], float]


class SearchError(ValueError):
    """What cannot be searched, and why."""


@dataclass(frozen=True)
class Space:
    """A base recipe and the kinds its heads may have, cheapest first."""

    base: Recipe
    candidates: tuple[Head, ...]
    linearize: bool = False
    """Whether MLPs may lose their GELU, and become one matrix, as in MPCViT+."""

    def __post_init__(self) -> None:
        for layer in self.base.config.layers:
            if self.linearize and (layer.activation != "gelu" or layer.mlp != "full"):
                raise SearchError(f"{self.base.name} has no GELU to remove: it uses {layer}")

    def config(self, assignment: Assignment) -> Config:
        """The base's shape with the assigned heads."""
        layers = []
        for layer, row in zip(self.base.config.layers, assignment, strict=True):
            heads = tuple(self.candidates[i] for i in row[: len(layer.heads)])
            layer = replace(layer, heads=heads)
            if self.linearize and not row[-1]:
                layer = replace(layer, mlp="fused", activation="relu")
            layers.append(layer)
        return replace(self.base.config, layers=tuple(layers))

    def search_recipe(self, epochs: int, weight: float) -> Recipe:
        """The blended model, started from the base and taught by it."""
        return replace(
            self.base,
            name=f"{self.base.name}-search",
            candidates=self.candidates,
            linearize=self.linearize,
            blend_weight=weight,
            epochs=epochs,
            start=self.base.name,
            teacher=self.base.name,
            every=1,
        )

    def retrain_recipe(
        self, name: str, assignment: Assignment, epochs: int, made_by: str, scratch: bool
    ) -> Recipe:
        """The chosen model, distilled as published: logits alone, and the final tokens."""
        return replace(
            self.base,
            name=f"{self.base.name}-{name}",
            config=self.config(assignment),
            epochs=epochs,
            start=None if scratch else f"{self.base.name}-search",
            teacher=self.base.name,
            label_share=0.0,
            token_weight=1.0,
            made_by=made_by,
            every=max(1, epochs // 4),
        )


def top(shares: Tensor, mu: float) -> Assignment:
    """The fraction ``mu`` of all heads (or MLPs), by their share of the last candidate, gets it.

    ``shares`` is [layers, heads, 2]; equal shares are taken in order of layer and head.
    """
    if shares.shape[-1] != 2:
        raise SearchError(
            f"μ is defined for two kinds, this search has {shares.shape[-1]}: use --budget"
        )
    if not 0 <= mu <= 1:
        raise SearchError(f"μ is a fraction of all heads, from 0 to 1, got {mu}")
    layers, heads, _ = shares.shape
    order = shares[..., 1].flatten().argsort(descending=True, stable=True)
    kept = set(order[: math.floor(mu * layers * heads + 0.5)].tolist())
    return tuple(tuple(int(i * heads + j in kept) for j in range(heads)) for i in range(layers))


def within(shares: Tensor, budget: float, price: Pricer) -> Assignment:
    """The heads with the largest gain in share move to dearer kinds while the budget lasts.

    Prices are asked for the whole model each time, since heads of a layer share rounds.
    """
    layers, heads, count = shares.shape
    chosen = [[0] * heads for _ in range(layers)]

    def frozen() -> Assignment:
        return tuple(tuple(row) for row in chosen)

    least = price(frozen())
    if least > budget:
        raise SearchError(
            f"budget {budget:g} cannot be met: the cheapest assignment costs {least:g}"
        )
    gains = sorted(
        (
            (-float(shares[i, j, k]), i, j, k)
            for i in range(layers)
            for j in range(heads)
            for k in range(1, count)
        ),
    )
    for gain, i, j, k in gains:
        before = chosen[i][j]
        if -gain <= float(shares[i, j, before]):
            continue
        chosen[i][j] = k
        if price(frozen()) > budget:
            chosen[i][j] = before
    return frozen()


COSTS = {
    "mpc-lan": (("--world", "mpc", "--network", "lan"), "online.latency_seconds.0"),
    "mpc-wan": (("--world", "mpc", "--network", "wan"), "online.latency_seconds.0"),
    "mpc-bytes": (("--world", "mpc", "--network", "lan"), "online.sent_bytes.client"),
    "fixed-point": ((), "worlds.1.operations"),
}
"""Named costs: arguments of ``undertone plan`` and the figure's path in its JSON. A latency has a
share that is measured on the machine at hand; bytes and operations are the same everywhere."""


@dataclass
class Plan:
    """Asks ``undertone`` what an assignment costs, on the searched weights."""

    program: str
    space: Space
    runs: Path
    data: Path | None
    arguments: Sequence[str]
    """What ``undertone plan`` gets beside the model."""
    key: str
    """Path of the figure in its JSON, with dots: ``mpc.seconds``."""
    known: dict[Assignment, float]

    def __call__(self, assignment: Assignment) -> float:
        if assignment not in self.known:
            folder = self.write(assignment)
            calibrate = ["calibrate", "--model", str(folder), "--limit", "256", "--json"]
            if self.data is not None:
                calibrate += ["--data", str(self.data)]
            self.ask(calibrate)
            answer = self.ask(["plan", "--model", str(folder), "--json", *self.arguments])
            self.known[assignment] = figure(json.loads(answer), self.key)
        return self.known[assignment]

    @torch.no_grad()
    def write(self, assignment: Assignment) -> Path:
        """A model folder of the searched weights with the assigned heads."""
        folder = self.runs / f"{self.space.base.name}-search" / "priced"
        folder.mkdir(parents=True, exist_ok=True)
        recipe = replace(
            self.space.base,
            name=f"{self.space.base.name}-search",
            config=self.space.config(assignment),
        )
        saved = torch.load(
            self.runs / recipe.name / "final.pt", map_location="cpu", weights_only=True
        )
        model = load_run(recipe, self.runs, saved["seeds"][:1])
        (folder / "model.safetensors").write_bytes(save(tensors(model, 0)))
        text = json.dumps(recipe.config.to_json(), indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n")
        return folder

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
            raise SearchError(f"{self.program} {arguments[0]} refused: {said}")
        return done.stdout


def figure(answer: object, key: str) -> float:
    """The number at a dotted path; list entries by number."""
    at = answer
    for part in key.split("."):
        if isinstance(at, dict) and part in at:
            at = at[part]
        elif isinstance(at, list) and part.isdigit() and int(part) < len(at):
            at = at[int(part)]
        else:
            known = sorted(at) if isinstance(at, dict) else type(at).__name__
            raise SearchError(f"the plan has no {key!r}: at {part!r} it has {known}")
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise SearchError(f"the plan's {key!r} is not a number")
    return float(at)


@dataclass(frozen=True)
class Found:
    """One model of the front."""

    name: str
    assignment: Assignment
    kinds: str
    """A row a layer, a letter a head: the candidates' first letters; + where GELU stays."""
    cost: float | None
    accuracy: float


def letters(space: Space, assignment: Assignment) -> str:
    """The assignment as text."""
    heads = space.base.config.num_attention_heads
    return " ".join(
        "".join(space.candidates[i].kind[0] for i in row[:heads]) + "+" * any(row[heads:])
        for row in assignment
    )


def shares_of(runs: Path, space: Space) -> Tensor:
    """The first seed's shares [layers, heads, candidates] of a finished search.

    Where GELUs may go, their shares follow the heads': 1 − β and β.
    """
    saved = torch.load(
        runs / f"{space.base.name}-search" / "final.pt", map_location="cpu", weights_only=True
    )
    rows = [
        saved["model"][f"blocks.{i}.blend.alpha"][0].unflatten(0, (-1, len(space.candidates)))
        for i in range(len(space.base.config.layers))
    ]
    if space.linearize:
        for i, row in enumerate(rows):
            beta = saved["model"][f"blocks.{i}.linearize.beta"][0]
            last = torch.zeros(1, row.shape[1])
            last[0, 0], last[0, 1] = 1 - beta[0], beta[0]
            rows[i] = torch.cat([row, last])
    return torch.stack(rows)


def search(
    space: Space,
    train: Callable[[Recipe], Trainer],
    runs: Path,
    epochs: tuple[int, int],
    weight: float,
    mus: Sequence[tuple[float, float]],
    budgets: Sequence[float],
    price: Pricer | None,
    command: str,
    scratch: bool = False,
) -> list[tuple[Recipe, Found]]:
    """The whole search; ``mus`` are the fractions of heads and of MLPs that stay dear. Each part resumes where it was interrupted.

    Returns the recipes and models, and leaves ``front.json`` beside the search's run.
    """
    if space.base.name not in RECIPES:
        raise SearchError(f"{space.base.name} is not a recipe")
    if budgets and price is None:
        raise SearchError("a budget needs --cost: which figure of undertone plan it limits")
    if not train(space.search_recipe(epochs[0], weight)).run():
        raise SearchError("the search was interrupted: the same command goes on")
    shares = shares_of(runs, space)
    heads = space.base.config.num_attention_heads
    chosen: dict[str, Assignment] = {}
    for mu, kept in mus:
        rows = top(shares[:, :heads], mu)
        if space.linearize:
            last = top(shares[:, heads:, :2], kept)
            rows = tuple(a + b for a, b in zip(rows, last, strict=True))
        chosen[f"mu{mu:g}" + (f"-gelu{kept:g}" if space.linearize else "")] = rows
    for budget in budgets:
        assert price is not None
        chosen[f"budget{budget:g}"] = within(shares, budget, price)
    front: list[tuple[Recipe, Found]] = []
    for name, assignment in chosen.items():
        recipe = space.retrain_recipe(name, assignment, epochs[1], command, scratch)
        trainer = train(recipe)
        if not trainer.run():
            raise SearchError(f"{recipe.name} was interrupted: the same command goes on")
        accuracy = trainer.accuracy()[0]
        cost = price(assignment) if price is not None else None
        found = Found(recipe.name, assignment, letters(space, assignment), cost, accuracy)
        front.append((recipe, found))
    report = {
        "base": space.base.name,
        "candidates": [head.to_json() for head in space.candidates],
        "shares": shares.tolist(),
        "models": [asdict(found) for _, found in front],
    }
    path = runs / f"{space.base.name}-search" / "front.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return front


def markdown(front: Sequence[Found]) -> str:
    """The front as a table, cheapest first; a dominated model is marked."""
    rows = sorted(front, key=lambda f: (f.cost is None, f.cost or 0.0, -f.accuracy))
    lines = ["| model | heads, a group a layer | cost | accuracy % | |", "|---|---|---|---|---|"]
    best = -math.inf
    for found in rows:
        mark = "" if found.accuracy > best else "dominated"
        best = max(best, found.accuracy)
        cost = "–" if found.cost is None else f"{found.cost:.4g}"
        lines.append(f"| `{found.name}` | {found.kinds} | {cost} | {found.accuracy:.2f} | {mark} |")
    return "\n".join(lines)
