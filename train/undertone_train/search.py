"""MPCViT's search over any kinds and any cost that ``undertone plan`` knows.

Zeng et al. 2023 (MPCViT): train a model whose heads are blends, keep the dear kind
where its share is largest, retrain from the softmax teacher. Here the number of heads that keep
it follows from a share μ, as published, or from a budget that ``undertone price`` is asked about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attention import Head
from .config import Config
from .export import export
from .plot import Point, svg
from .prices import Prices, SearchError
from .recipes import RECIPES, Recipe, replace
from .train import Trainer, evaluate

Assignment = tuple[tuple[int, ...], ...]
"""The candidate's index of each head, a tuple a layer; in a search that also removes GELUs a last
entry, 1 where the layer keeps it."""
Pricer = Callable[[Assignment], float]


@dataclass(frozen=True)
class Retraining:
    """How the chosen models are trained."""

    command: str = ""
    """What ``training.json`` says that they were made by."""
    scratch: bool = False
    """From new weights, as published, not from the searched ones."""
    labels: bool = False
    """On labels, without the teacher."""


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

    @property
    def search_name(self) -> str:
        """What the search's own run is called."""
        return f"{self.base.name}-search" + "-plus" * self.linearize

    def search_recipe(self, epochs: int, weight: float) -> Recipe:
        """The blended model, started from the base and taught by it."""
        return replace(
            self.base,
            name=self.search_name,
            candidates=self.candidates,
            linearize=self.linearize,
            blend_weight=weight,
            epochs=epochs,
            start=self.base.name,
            teacher=self.base.name,
            every=1,
        )

    def retrain_recipe(
        self, name: str, assignment: Assignment, epochs: int, how: Retraining
    ) -> Recipe:
        """The chosen model, distilled as published: logits alone, and the final tokens.

        Checkpoints and evaluations are the base's, or at least four.
        """
        recipe = replace(
            self.base,
            name=f"{self.base.name}-{name}" + "-labels" * how.labels,
            config=self.config(assignment),
            epochs=epochs,
            start=None if how.scratch else self.search_name,
            made_by=how.command,
            every=max(1, min(self.base.every, epochs // 4)),
        )
        if how.labels:
            return recipe
        return replace(recipe, teacher=self.base.name, label_share=0.0, token_weight=1.0)


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


@dataclass(frozen=True)
class Found:
    """One model of the front."""

    name: str
    assignment: Assignment
    kinds: str
    """A row a layer, a letter a head: the candidates' first letters; + where GELU stays."""
    cost: float | None
    accuracy_percent: float
    dominated: bool = False
    """Another model is at least as good for at most this cost."""


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
    saved = torch.load(runs / space.search_name / "final.pt", map_location="cpu", weights_only=True)
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


def in_order(space: Space, prices: Prices, runs: Path) -> tuple[Space, list[float]]:
    """The space with its kinds from the cheapest to the dearest, and the base's price in each.

    A world that cannot run a kind refuses it here, before anything is trained.
    """
    priced: list[tuple[float, Head]] = []
    for head in space.candidates:
        layers = tuple(
            replace(layer, heads=(head,) * len(layer.heads)) for layer in space.base.config.layers
        )
        config = replace(space.base.config, layers=layers)
        try:
            priced.append((prices.of(space.base, config, runs), head))
        except SearchError as error:
            kind = json.dumps(head.to_json())
            raise SearchError(f"{kind} has no price {prices.cost}: {error}") from error
    priced.sort(key=lambda pair: pair[0])
    return replace(space, candidates=tuple(h for _, h in priced)), [p for p, _ in priced]


def price_of(
    prices: Prices, run: Recipe, space: Space, runs: Path, assignment: Assignment
) -> float:
    """What an assignment costs with the weights of a run."""
    return prices.of(run, space.config(assignment), runs)


def marked(found: Sequence[Found]) -> list[Found]:
    """Cheapest first, the dominated ones marked."""
    rows = sorted(found, key=lambda f: (f.cost is None, f.cost or 0.0, -f.accuracy_percent))
    best, out = -math.inf, []
    for row in rows:
        out.append(replace(row, dominated=row.accuracy_percent <= best))
        best = max(best, row.accuracy_percent)
    return out


def search(
    space: Space,
    train: Callable[[Recipe], Trainer],
    runs: Path,
    epochs: tuple[int, int],
    weight: float,
    mus: Sequence[tuple[float, float]],
    budgets: Sequence[float],
    prices: Prices | None,
    how: Retraining,
    models: Path | None = None,
) -> dict[str, Any]:
    """The whole search; ``mus`` are the fractions of heads and of MLPs that stay dear.

    Each part resumes where it was interrupted. Returns the report, and leaves it as ``front.json``,
    beside ``front.svg``, in the search's run; the found models go to ``models``.
    """
    base = space.base
    if base.name not in RECIPES:
        raise SearchError(f"{base.name} is not a recipe")
    if budgets and prices is None:
        raise SearchError("a budget needs --cost: which figure it limits")
    searched = space.search_recipe(epochs[0], weight)
    folder, kinds = runs / searched.name, list[float]()
    if prices is not None:
        prices.open(runs / base.name / "final.pt")
        space, kinds = in_order(space, prices, runs)
        searched = space.search_recipe(epochs[0], weight)
        none = tuple((0,) * (len(l.heads) + space.linearize) for l in base.config.layers)
        least = prices.of(base, space.config(none), runs)
        for budget in budgets:
            if budget < least:
                raise SearchError(
                    f"budget {budget:g} cannot be met: the cheapest assignment costs {least:g} "
                    f"({prices.unit}), with {space.candidates[0].kind} in every head"
                )
    searching = train(searched)
    if not searching.run():
        raise SearchError("the search was interrupted: the same command goes on")
    shares = shares_of(runs, space)
    heads = base.config.num_attention_heads
    chosen: dict[str, Assignment] = {}
    for mu, kept in mus:
        rows = top(shares[:, :heads], mu)
        if space.linearize:
            last = top(shares[:, heads:, :2], kept)
            rows = tuple(a + b for a, b in zip(rows, last, strict=True))
        chosen[f"mu{mu:g}" + (f"-gelu{kept:g}" if space.linearize else "")] = rows
    if prices is not None:
        priced = partial(price_of, prices, searched, space, runs)
        for budget in budgets:
            name = f"{prices.cost}-{budget:g}" + "-plus" * space.linearize
            chosen[name] = within(shares, budget, priced)
    seeds = searching.seeds
    found: list[Found] = []
    for name, assignment in chosen.items():
        recipe = space.retrain_recipe(name, assignment, epochs[1], how)
        trainer = train(recipe)
        if not trainer.run():
            raise SearchError(f"{recipe.name} was interrupted: the same command goes on")
        accuracy, cost = trainer.accuracy()[0], None
        target = models or folder / "models"
        out = export(recipe, runs, target, seeds[0])
        if prices is not None:
            cost = prices.model(out)
        found.append(Found(recipe.name, assignment, letters(space, assignment), cost, accuracy))
    taught = None
    if searching.teacher is not None:
        taught = {
            "name": base.name,
            "cost": prices.of(base, base.config, runs) if prices is not None else None,
            "accuracy_percent": evaluate(searching.teacher, searching.task)[0],
        }
    suffix = "-labels" * how.labels
    report = {
        "version": 1,
        "cost": prices.cost if prices is not None else None,
        "unit": prices.unit if prices is not None else None,
        "rates": prices.rates if prices is not None else None,
        "candidates": [head.to_json() for head in space.candidates],
        "candidates_cost": kinds,
        "search_epochs": epochs[0],
        "epochs": epochs[1],
        "seed": seeds[0],
        "teacher": taught,
        "shares": shares.tolist(),
        "models": [asdict(one) for one in marked(found)],
        "plot": str(folder / f"front{suffix}.svg"),
    }
    if prices is not None and found:
        (folder / f"front{suffix}.svg").write_text(plot(report))
    (folder / f"front{suffix}.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def plot(report: dict[str, Any]) -> str:
    """The front and the teacher as SVG."""
    stem = f"{report['teacher']['name']}-"
    points = [
        Point(
            m["name"].removeprefix(stem),
            m["cost"],
            m["accuracy_percent"],
            "dominated" if m["dominated"] else "front",
        )
        for m in report["models"]
    ]
    t = report["teacher"]
    points.append(Point("teacher", t["cost"], t["accuracy_percent"], "teacher"))
    title = f"{t['name']}: {', '.join(c['kind'] for c in report['candidates'])}"
    return svg(title, report["cost"], report["unit"], points)


def markdown(report: dict[str, Any]) -> str:
    """The front as a table, cheapest first."""
    cost = f"{report['cost']}, {report['unit']}" if report["cost"] else "cost"
    lines = [f"| model | heads, a group a layer | {cost} | accuracy % | |", "|---|---|---|---|---|"]
    for m in report["models"]:
        price = "–" if m["cost"] is None else f"{m['cost']:.4g}"
        mark = "dominated" if m["dominated"] else ""
        lines.append(
            f"| `{m['name']}` | {m['kinds']} | {price} | {m['accuracy_percent']:.2f} | {mark} |"
        )
    return "\n".join(lines)
