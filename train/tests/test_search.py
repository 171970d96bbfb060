"""The search: its parts against hand-made cases, and a small one from end to end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from undertone_train.attention import Head, attend
from undertone_train.blend import Blend, simplex
from undertone_train.cli import _parse, main
from undertone_train.export import export
from undertone_train.model import Encoder
from undertone_train.prices import Prices, SearchError
from undertone_train.read import adopt
from undertone_train.recipes import KINDS, RECIPES, Recipe, replace
from undertone_train.search import (
    Assignment,
    Retraining,
    Space,
    markdown,
    search,
    top,
    within,
)
from undertone_train.tasks import Sources
from undertone_train.train import Options, Trainer, save
from undertone_train.transfer import load_matching


def test_the_simplex_is_reached_and_is_nearest() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    y = simplex(x)
    torch.testing.assert_close(y.sum(-1), torch.ones(200))
    assert (y >= 0).all()
    others = torch.rand(500, 3)
    others = others / others.sum(-1, keepdim=True)
    near = (x - y).square().sum(-1, keepdim=True)
    far = (x[:, None] - others[None]).square().sum(-1)
    assert (near <= far + 1e-6).all()


def test_two_entries_are_clamped_as_published() -> None:
    a = torch.tensor([-0.5, 0.25, 1.5])
    torch.testing.assert_close(
        simplex(torch.stack([a, 1 - a], -1))[:, 0], a.clamp(0, 1), rtol=0, atol=1e-6
    )


def test_a_blend_is_the_sum_of_its_kinds() -> None:
    torch.manual_seed(1)
    kinds = (KINDS["scaling"], KINDS["relu"], KINDS["power2"])
    blend = Blend(2, 3, kinds)
    q, k, v = torch.randn(3, 2, 4, 3, 5, 8).unbind(0)
    torch.testing.assert_close(blend(q, k, v, None), attend(kinds[-1], q, k, v)[0])
    blend.alpha.data.copy_(torch.rand(2, 9))
    blend.project()
    want = sum(
        blend.shares()[:, None, :, None, None, i] * attend(kind, q, k, v)[0]
        for i, kind in enumerate(kinds)
    )
    torch.testing.assert_close(blend(q, k, v, None), want)


def test_equal_or_single_kinds_are_no_search() -> None:
    with pytest.raises(ValueError, match="two different"):
        Blend(1, 4, (Head("scaling"),))


def test_mu_takes_the_largest_shares_of_all_layers() -> None:
    dear = torch.tensor([[0.9, 0.1, 0.4], [0.8, 0.7, 0.0]])
    shares = torch.stack([1 - dear, dear], -1)
    assert top(shares, 0.5) == ((1, 0, 0), (1, 1, 0))
    assert top(shares, 0.0) == ((0, 0, 0), (0, 0, 0))
    assert top(shares, 1.0) == ((1, 1, 1), (1, 1, 1))
    with pytest.raises(SearchError, match="from 0 to 1"):
        top(shares, 1.5)
    with pytest.raises(SearchError, match="--budget"):
        top(torch.zeros(1, 2, 3), 0.5)


def rounds(assignment: Assignment) -> float:
    """A layer costs what its dearest head costs: 1, 10 or 100."""
    return float(sum(10 ** max(row) for row in assignment))


def test_a_budget_is_kept_and_shared_rounds_are_seen() -> None:
    shares = torch.tensor(
        [
            [[0.1, 0.9, 0.0], [0.4, 0.6, 0.0]],
            [[0.2, 0.0, 0.8], [0.9, 0.1, 0.0]],
        ]
    )
    assert within(shares, 200, rounds) == ((1, 1), (2, 0))
    # A second head of a layer that pays already is free; the dear one does not fit.
    assert within(shares, 20, rounds) == ((1, 1), (0, 0))
    assert within(shares, 2, rounds) == ((0, 0), (0, 0))
    with pytest.raises(SearchError, match="cheapest assignment costs 2"):
        within(shares, 1, rounds)


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr("undertone_train.tasks.EVALUATION_EPISODES", 64)
    small = replace(RECIPES["recall-softmax"], epochs=2, steps=4, batch=16, every=1)
    monkeypatch.setitem(RECIPES, small.name, small)
    torch.set_num_threads(1)
    return small


def trainer(folder: Path, deadline: float | None = None):  # type: ignore[no-untyped-def]
    def make(recipe: Recipe) -> Trainer:
        options = Options(folder, torch.device("cpu"), deadline=deadline)
        return Trainer(recipe, [0], Sources({}), options)

    return make


class Rounds(Prices):
    """A layer costs 10 for a ReLU-softmax head, 1 without; softmax runs nowhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__("no-such-program", "rounds", [], folder, None)

    def model(self, folder: Path) -> float:
        self.unit = "count"
        layers = json.loads((folder / "config.json").read_text())["undertone"]["layers"]
        kinds = [{head["kind"] for head in layer["heads"]} for layer in layers]
        if any("two_quad" in kind for kind in kinds):
            raise SearchError("two_quad: no rounds for that")
        return float(sum(10 if "relu_softmax" in kind else 1 for kind in kinds))


HOW = Retraining("the command")
SEARCH = "recall-softmax-search"


def run(
    folder: Path, base: Recipe, deadline: float | None = None, budget: float = 5.0
) -> dict[str, Any]:
    # The dear kind comes first: prices put it last.
    space = Space(base, (KINDS["relu"], KINDS["scaling"]))
    make, prices = trainer(folder, deadline), Rounds(folder / SEARCH)
    return search(space, make, folder, (2, 2), 0.1, [(0.5, 1.0)], [budget], prices, HOW)


def test_a_search_from_end_to_end_resumes_and_repeats(tmp_path: Path, base: Recipe) -> None:
    for folder in ("a", "b"):
        trainer(tmp_path / folder)(base).run()
    straight = run(tmp_path / "a", base)
    with pytest.raises(SearchError, match="goes on"):
        run(tmp_path / "b", base, deadline=0.0)
    resumed = run(tmp_path / "b", base)
    same = ("candidates", "candidates_cost", "shares", "models", "teacher")
    assert [straight[k] for k in same] == [resumed[k] for k in same]
    assert [c["kind"] for c in straight["candidates"]] == ["scaling", "relu_softmax"]
    assert straight["candidates_cost"] == [1, 10]
    cheap, half = straight["models"]
    assert half["kinds"].count("r") == 2 and half["cost"] == 10
    assert cheap["kinds"] == "ssss" and cheap["cost"] == 1 and not cheap["dominated"]
    made = tmp_path / "a" / SEARCH / "models"
    heads = json.loads((made / half["name"] / "config.json").read_text())["undertone"]["layers"]
    assert [h["kind"] for h in heads[0]["heads"]].count("relu_softmax") == 2
    training = json.loads((made / cheap["name"] / "training.json").read_text())
    assert training["command"] == "the command" and training["needs_runs"] == [SEARCH, base.name]
    kept = json.loads((tmp_path / "a" / SEARCH / "front.json").read_text())
    assert kept == json.loads(json.dumps(straight))
    assert markdown(straight).count("\n") == 3
    drawn = ElementTree.parse(straight["plot"]).getroot()
    assert sum(e.tag.endswith("circle") for e in drawn.iter()) == 3
    assert "rounds-5" in "".join(drawn.itertext())


def test_the_blends_cost_moves_heads_to_the_cheap_kind(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path)(base).run()
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))
    report = search(space, trainer(tmp_path), tmp_path, (6, 1), 10.0, [], [], None, HOW)
    assert all(head[1] < 0.99 for head in report["shares"][0])


def test_what_cannot_be_searched_is_refused_before_training(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path)(base).run()
    with pytest.raises(SearchError, match=r"budget 0.5 cannot .* costs 1 \(count\), with scaling"):
        run(tmp_path, base, budget=0.5)
    space = Space(base, (KINDS["scaling"], KINDS["two_quad"]))
    prices = Rounds(tmp_path / SEARCH)
    with pytest.raises(SearchError, match='"two_quad".*no price rounds: two_quad: no rounds'):
        search(space, trainer(tmp_path), tmp_path, (1, 1), 0.1, [(0.5, 1.0)], [], prices, HOW)
    with pytest.raises(SearchError, match="--cost"):
        search(space, trainer(tmp_path), tmp_path, (1, 1), 0.1, [], [1.0], None, HOW)
    assert not (tmp_path / SEARCH / "log.jsonl").exists()


def test_prices_are_remembered_and_those_of_another_model_refused(
    tmp_path: Path, base: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path)(base).run()
    first = run(tmp_path, base)
    asked: list[Path] = []
    real = Rounds.model

    def counted(self: Rounds, folder: Path) -> float:
        asked.append(folder)
        return real(self, folder)

    monkeypatch.setattr(Rounds, "model", counted)
    assert run(tmp_path, base) == first
    assert {folder.parent.name for folder in asked} == {"models"}
    other = replace(base, batch=8)
    (tmp_path / base.name / "checkpoint.pt").unlink()
    trainer(tmp_path)(other).run()
    with pytest.raises(SearchError, match="prices of another model"):
        run(tmp_path, base)


def test_retraining_without_the_teacher_is_another_run(tmp_path: Path, base: Recipe) -> None:
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))
    taught = space.retrain_recipe("x", ((0, 1, 0, 1),), 8, HOW)
    alone = space.retrain_recipe("x", ((0, 1, 0, 1),), 8, Retraining(labels=True, scratch=True))
    assert (taught.teacher, taught.label_share, taught.start) == (base.name, 0.0, SEARCH)
    assert (alone.teacher, alone.label_share, alone.start) == (None, base.label_share, None)
    assert taught.name != alone.name


def test_a_model_folder_serves_as_the_teacher(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path / "runs")(base).run()
    folder = export(base, tmp_path / "runs", tmp_path / "models", 0)
    adopt(base, tmp_path / "adopted", folder, 0)
    adopt(base, tmp_path / "adopted", folder, 0)
    first, second = run(tmp_path / "runs", base), run(tmp_path / "adopted", base)
    assert first["models"] == second["models"]
    other = replace(
        base, config=Space(base, (KINDS["relu"], KINDS["scaling"])).config(((0, 0, 1, 1),))
    )
    with pytest.raises(ValueError, match="another shape"):
        adopt(other, tmp_path / "x", folder, 0)
    (tmp_path / "third" / base.name).mkdir(parents=True)
    trainer(tmp_path / "third")(replace(base, batch=8)).run()
    with pytest.raises(ValueError, match="another model than"):
        adopt(base, tmp_path / "third", folder, 0)


def test_a_missing_program_and_a_refusal_are_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="cargo build"):
        Rounds(tmp_path).ask(["price"])
    prices = Rounds(tmp_path)
    prices.program = "false"
    with pytest.raises(SearchError, match="undertone price:"):
        prices.ask(["price"])


def test_the_command_names_what_it_lacks(
    tmp_path: Path, base: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--runs", str(tmp_path / "runs"), "--teacher", str(tmp_path / "none")]
    for more, word in (
        ([], "neither trained nor"),
        (["--kinds", "scaling,magic"], "'magic'"),
        (["--kinds", "relu"], "two different kinds"),
        (["--mu", "0.5", "--gelu", "0.5,0.7"], "2 values of --gelu for 1"),
    ):
        trained = tmp_path / "runs" / base.name / "final.pt"
        if "gelu" in " ".join(more):
            trainer(tmp_path / "runs")(base).run()
            where = where[:2]
        assert main(["search", base.name, "--device", "cpu", *where, *more]) == 2
        said = capsys.readouterr().err
        assert word in said, (said, trained)


def test_published_searches_are_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = _parse(["search", "cifar10-mpcvit"])
    assert (parsed.base, parsed.mu, parsed.scratch) == ("cifar10-softmax", "0.1,0.3,0.5,0.7", True)
    assert (parsed.search_epochs, parsed.epochs, parsed.labels) == (300, 600, False)
    parsed = _parse(["search", "cifar10-mpcvit-plus", "--epochs", "5"])
    assert parsed.gelu.count(",") == 1 and parsed.epochs == 5
    assert _parse(["search", "cifar10-mpcvit-labels"]).labels


KILLED = """
import sys
from pathlib import Path
import torch
import undertone_train.tasks
undertone_train.tasks.EVALUATION_EPISODES = 64
from undertone_train.recipes import RECIPES, replace
from undertone_train.cli import _parse, main
torch.set_num_threads(1)
name = "recall-softmax"
RECIPES[name] = replace(RECIPES[name], epochs=2, steps=4, batch=16, every=1)
runs = sys.argv[1]
if not (Path(runs) / name / "final.pt").exists():
    main(["run", name, "--seeds", "0", "--device", "cpu", "--runs", runs])
main(["search", name, "--mu", "0.5,1", "--device", "cpu", "--runs", runs,
      "--search-epochs", "12", "--epochs", "12"])
print("finished", flush=True)
"""


def test_a_killed_search_goes_on_to_the_same_result(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(KILLED)

    def start(runs: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path / runs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    assert start("a").communicate()[0].endswith("finished\n")
    killed = 0
    # Once in the search, once in a retraining, each time between a checkpoint and the next.
    for name, after in ((SEARCH, 3), ("recall-softmax-mu1", 1)):
        log = tmp_path / "b" / name / "log.jsonl"
        process = start("b")
        while process.poll() is None:
            if log.exists() and log.read_text().count("\n") > after:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
            time.sleep(0.002)
        process.communicate()
    assert killed == 2
    assert start("b").communicate()[0].endswith("finished\n")
    for name in (SEARCH, "recall-softmax-mu0.5", "recall-softmax-mu1"):
        runs = [
            torch.load(tmp_path / folder / name / "final.pt", weights_only=True)["model"]
            for folder in "ab"
        ]
        assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0]), name
    fronts = [json.loads((tmp_path / f / SEARCH / "front.json").read_text()) for f in "ab"]
    assert fronts[0]["models"] == fronts[1]["models"]


def test_a_removed_gelu_leaves_one_matrix_that_computes_the_same(
    tmp_path: Path, base: Recipe
) -> None:
    trainer(tmp_path)(base).run()
    space = Space(base, (KINDS["scaling"], KINDS["relu"]), linearize=True)
    searched = trainer(tmp_path)(space.search_recipe(1, 0.1))
    searched.run()
    model = searched.model.eval()
    for blend in model.blends():
        blend.project()
    block = model.blocks[0]
    block.linearize.beta.data.zero_()
    block.blend.alpha.data.copy_(torch.tensor([[1.0, 0.0] * 4]))
    save(
        tmp_path / "recall-softmax-search-plus" / "final.pt",
        {"model": model.state_dict(), "seeds": [0]},
    )
    recipe = space.retrain_recipe("fused", ((0, 0, 0, 0, 0),), 1, HOW)
    alone = Encoder(recipe.config, 1)
    load_matching(alone, tmp_path / "recall-softmax-search-plus" / "final.pt", [0])
    assert not hasattr(alone.blocks[0], "down") and alone.blocks[0].up.weight.shape == (1, 64, 64)
    x, _ = base.recall.episodes(1, 8)
    torch.testing.assert_close(
        alone.eval()(x.unsqueeze(0))[0], model(x.unsqueeze(0))[0], rtol=1e-4, atol=1e-4
    )


def test_removing_gelus_is_searched_and_named(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path)(base).run()
    space = Space(base, (KINDS["scaling"], KINDS["relu"]), linearize=True)
    make = trainer(tmp_path)
    report = search(space, make, tmp_path, (1, 1), 0.1, [(0.5, 0.0), (0.5, 1.0)], [], None, HOW)
    kinds = {m["name"]: m["kinds"] for m in report["models"]}
    assert "+" not in kinds["recall-softmax-mu0.5-gelu0"]
    assert kinds["recall-softmax-mu0.5-gelu1"].endswith("+")
    affine = RECIPES["vit-fmnist-he1"]
    with pytest.raises(SearchError, match="no GELU"):
        Space(affine, (KINDS["scaling"], KINDS["relu"]), linearize=True)
