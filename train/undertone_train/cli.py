"""``undertone-train``: train, export, golden files and tables."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import torch

from .presets import SEARCHES
from .recipes import KINDS, RECIPES, Recipe, replace
from .tasks import Sources
from .train import Options, Trainer


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; a published search fills in what it leaves out."""
    parser, find = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "search" and arguments.base in SEARCHES:
        preset = SEARCHES[arguments.base]
        find.set_defaults(**preset)
        arguments = parser.parse_args(argv)
        arguments.base = preset["base"]
    return arguments


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="undertone-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def common(p: argparse.ArgumentParser) -> None:
        p.add_argument("--fmnist", type=Path, help="folder with the four Fashion-MNIST IDX files")
        p.add_argument("--cifar10", type=Path, help="folder or zip with train/ and test/ classes")
        p.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")

    run = commands.add_parser("run", help="train recipes one after the other")
    run.add_argument("recipes", nargs="+", metavar="RECIPE", choices=sorted(RECIPES))
    run.add_argument("--seeds", default="0,1,2", help="comma-separated, trained side by side")
    run.add_argument("--epochs", type=int, help="instead of the recipe's own number")
    run.add_argument("--steps", type=int, help="of an epoch, instead of the recipe's")
    run.add_argument("--batch", type=int, help="instead of the recipe's")
    run.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    run.add_argument("--compile", action="store_true", help="fuse kernels with torch.compile")
    run.add_argument("--deadline", type=float, help="seconds for all recipes; resumable after")
    common(run)

    find = commands.add_parser("search", help="choose each head's kind by its cost (MPCViT)")
    find.add_argument(
        "base",
        metavar="RECIPE",
        choices=sorted([*RECIPES, *SEARCHES]),
        help=f"the teacher, trained; or a published search: {', '.join(SEARCHES)}",
    )
    find.add_argument(
        "--kinds",
        default="scaling,relu",
        help=f"the choices, cheapest first, of {', '.join(KINDS)} (default: scaling,relu)",
    )
    find.add_argument("--mu", default="", help="fractions of heads that keep the dear kind")
    find.add_argument(
        "--gelu",
        help="MPCViT+: for each --mu the fraction of MLPs that keep GELU; the others are fused",
    )
    find.add_argument("--budget", default="", help="costs not to exceed, in the unit of --cost")
    find.add_argument("--cost", help="what undertone price is asked for: mpc-wan, energy, …")
    find.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="a word more for undertone price, such as --price=--network=10,100; repeatable",
    )
    find.add_argument("--undertone", default="target/release/undertone", help="the program to ask")
    find.add_argument("--search-epochs", type=int, default=10)
    find.add_argument("--epochs", type=int, default=40, help="of each retraining")
    find.add_argument("--weight", type=float, default=1e-2, help="of the blend's cost in the loss")
    find.add_argument(
        "--rate", type=float, help="instead of the recipe's, of search and retraining"
    )
    find.add_argument(
        "--batch", type=int, help="instead of the recipe's; an epoch stays as many examples"
    )
    find.add_argument(
        "--scratch", action="store_true", help="retrain from new weights, as published"
    )
    find.add_argument(
        "--labels", action="store_true", help="retrain on labels, without the teacher"
    )
    find.add_argument("--seed", type=int, default=0)
    find.add_argument(
        "--teacher", type=Path, help="its model folder (default: the run, or models/RECIPE)"
    )
    find.add_argument("--models", type=Path, help="folder for the found models")
    find.add_argument("--data", type=Path, help="what the recipe is trained on, whatever its task")
    find.add_argument("--json", action="store_true", help="print the report instead of a table")
    find.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    find.add_argument("--compile", action="store_true", help="fuse kernels with torch.compile")
    find.add_argument("--deadline", type=float, help="seconds; the same command goes on after")
    common(find)

    listing = commands.add_parser("list", help="name every recipe")
    common(listing)

    export = commands.add_parser("export", help="write model folders from finished runs")
    export.add_argument("recipes", nargs="+", metavar="RECIPE", choices=sorted(RECIPES))
    export.add_argument("--seed", type=int, default=0)
    export.add_argument("--models", type=Path, default=Path("models"))
    common(export)

    take = commands.add_parser("adopt", help="make a model folder the finished run of its recipe")
    take.add_argument("recipe", metavar="RECIPE", choices=sorted(RECIPES))
    take.add_argument("folder", type=Path, help="models/RECIPE, say")
    take.add_argument("--seed", type=int, default=0)
    common(take)

    check = commands.add_parser("measure", help="accuracy in float32 and ranges of finished runs")
    check.add_argument("recipes", nargs="+", metavar="RECIPE", choices=sorted(RECIPES))
    check.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    common(check)

    golden = commands.add_parser("golden", help="write the golden files that Rust is tested on")
    golden.add_argument("--out", type=Path, default=Path("tests/golden"))
    golden.add_argument("--models", type=Path, default=Path("models"))

    table = commands.add_parser("table", help="accuracies of models/ as a Markdown table")
    table.add_argument("--models", type=Path, default=Path("models"))

    images = commands.add_parser("images", help="write test images of Fashion-MNIST as PNG")
    images.add_argument("--out", type=Path, default=Path("models/images"))
    images.add_argument("--count", type=int, default=40)
    common(images)
    return parser, find


def _run(arguments: argparse.Namespace, sources: Sources) -> int:
    seeds = [int(s) for s in arguments.seeds.split(",")]
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    began = time.monotonic()
    finished = True
    for name in arguments.recipes:
        recipe = RECIPES[name]
        if arguments.epochs:
            recipe = replace(recipe, epochs=arguments.epochs)
        if arguments.steps:
            recipe = replace(recipe, steps=arguments.steps)
        if arguments.batch:
            recipe = replace(recipe, batch=arguments.batch)
        left = None
        if arguments.deadline is not None:
            left = arguments.deadline - (time.monotonic() - began)
            if left <= 0:
                print(f"{name}: no time left", file=sys.stderr)
                finished = False
                continue
        options = Options(arguments.runs, device, arguments.compile, left)
        finished &= Trainer(recipe, seeds, sources, options).run()
    return 0 if finished else 1


def _search(arguments: argparse.Namespace, sources: Sources, given: list[str]) -> int:
    from .prices import Prices, calibration_images
    from .read import adopt
    from .search import Retraining, Space, markdown, search

    names = arguments.kinds.split(",")
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        return _refuse(f"kinds {unknown} are unknown; known: {', '.join(KINDS)}")
    base = RECIPES[arguments.base]
    if arguments.data is not None:
        sources.folders[base.task] = arguments.data
    if arguments.rate:
        base = replace(base, rate=arguments.rate)
    if arguments.batch:
        steps = base.steps * base.batch // arguments.batch
        base = replace(base, steps=steps, batch=arguments.batch)
    kinds = tuple(KINDS[name] for name in names)
    if len(set(kinds)) != len(kinds) or len(kinds) < 2:
        return _refuse(f"a search needs two different kinds or more, got {arguments.kinds}")
    device, prices = torch.device(arguments.device), None
    trained = (arguments.runs / base.name / "final.pt").exists()
    teacher = arguments.teacher or Path("models") / base.name
    try:
        space = Space(base, kinds, arguments.gelu is not None)
        if arguments.teacher is not None or not trained:
            if not teacher.exists():
                return _refuse(f"{base.name} is neither trained nor in {teacher}")
            adopt(base, arguments.runs, teacher, arguments.seed)
            print(f"the teacher is {teacher}", file=sys.stderr)
        if arguments.cost:
            folder = arguments.runs / space.search_name
            folder.mkdir(parents=True, exist_ok=True)
            task = sources.open(base, torch.device("cpu"))
            images = calibration_images(task, folder / "calibration")
            prices = Prices(arguments.undertone, arguments.cost, arguments.price, folder, images)
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    began, seeds = time.monotonic(), [arguments.seed]

    def train(recipe: Recipe) -> Trainer:
        left = arguments.deadline and max(0.0, arguments.deadline - (time.monotonic() - began))
        return Trainer(
            recipe, seeds, sources, Options(arguments.runs, device, arguments.compile, left)
        )

    def numbers(text: str) -> list[float]:
        return [float(part) for part in text.split(",") if part]

    mus, kept = numbers(arguments.mu), numbers(arguments.gelu or "")
    if kept and len(kept) != len(mus):
        return _refuse(f"{len(kept)} values of --gelu for {len(mus)} of --mu")
    try:
        report = search(
            space,
            train,
            arguments.runs,
            (arguments.search_epochs, arguments.epochs),
            arguments.weight,
            list(zip(mus, kept or [1.0] * len(mus), strict=True)),
            numbers(arguments.budget),
            prices,
            Retraining(
                shlex.join(["undertone-train", *given]), arguments.scratch, arguments.labels
            ),
            arguments.models,
        )
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    print(json.dumps(report) if arguments.json else markdown(report))
    return 0


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = _parse(argv)
    folders = {
        task: path
        for task in ("fmnist", "cifar10")
        if (path := getattr(arguments, task, None)) is not None
    }
    sources = Sources(folders)
    match arguments.command:
        case "run":
            return _run(arguments, sources)
        case "search":
            return _search(arguments, sources, sys.argv[1:] if argv is None else argv)
        case "list":
            for recipe in RECIPES.values():
                print(f"{recipe.name}: {recipe.task}, {recipe.epochs} epochs")
        case "export":
            from .export import export

            for name in arguments.recipes:
                export(RECIPES[name], arguments.runs, arguments.models, arguments.seed)
        case "adopt":
            from .read import adopt

            try:
                adopt(RECIPES[arguments.recipe], arguments.runs, arguments.folder, arguments.seed)
            except (ValueError, OSError) as error:
                return _refuse(str(error))
        case "measure":
            from .measure import measure

            for name in arguments.recipes:
                device = torch.device(arguments.device)
                result = measure(RECIPES[name], arguments.runs, sources, device)
                print(name, result["accuracy"], flush=True)
        case "golden":
            from .golden import write_golden

            write_golden(arguments.out, arguments.models)
        case "table":
            from .table import table

            print(table(arguments.models))
        case "images":
            from .images import write_images

            write_images(sources.folders["fmnist"], arguments.out, arguments.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
