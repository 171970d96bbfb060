"""The search: its parts against hand-made cases, and a small one from end to end."""

import json
from pathlib import Path

import pytest
import torch

from undertone_train.attention import Head, attend
from undertone_train.blend import Blend, simplex
from undertone_train.cli import main
from undertone_train.export import export
from undertone_train.model import Encoder
from undertone_train.read import adopt
from undertone_train.recipes import KINDS, RECIPES, Recipe, replace
from undertone_train.search import (
    Assignment,
    Found,
    Plan,
    SearchError,
    Space,
    figure,
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


def test_a_figure_of_a_plan_is_found_or_named() -> None:
    plan = {"worlds": [{"operations": 7, "world": "float"}]}
    assert figure(plan, "worlds.0.operations") == 7
    with pytest.raises(SearchError, match="'operations', 'world'"):
        figure(plan, "worlds.0.seconds")
    with pytest.raises(SearchError, match="not a number"):
        figure(plan, "worlds.0.world")


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


def run(folder: Path, base: Recipe, deadline: float | None = None) -> list[tuple[Recipe, Found]]:
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))
    make = trainer(folder, deadline)
    return search(space, make, folder, (2, 2), 0.1, [(0.5, 1.0)], [5.0], rounds, "the command")


def test_a_search_from_end_to_end_resumes_and_repeats(tmp_path: Path, base: Recipe) -> None:
    for folder in ("a", "b"):
        trainer(tmp_path / folder)(base).run()
    straight = run(tmp_path / "a", base)
    with pytest.raises(SearchError, match="goes on"):
        run(tmp_path / "b", base, deadline=0.0)
    resumed = run(tmp_path / "b", base)
    assert straight == resumed
    (half, by_mu), (cheap, by_budget) = straight
    assert by_mu.kinds.count("r") == 2 and by_mu.cost == 10
    assert by_budget.kinds == "ssss" and by_budget.cost == 1
    assert half.config.layers[0].heads.count(KINDS["relu"]) == 2
    assert cheap.teacher == base.name and cheap.label_share == 0
    report = json.loads((tmp_path / "a" / "recall-softmax-search" / "front.json").read_text())
    assert [m["kinds"] for m in report["models"]] == [by_mu.kinds, by_budget.kinds]
    assert markdown([f for _, f in straight]).count("\n") == 3


def test_the_blends_cost_moves_heads_to_the_cheap_kind(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path)(base).run()
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))
    make = trainer(tmp_path)
    search(space, make, tmp_path, (6, 1), 10.0, [], [], None, "")
    shares = json.loads((tmp_path / "recall-softmax-search" / "front.json").read_text())["shares"]
    assert all(head[1] < 0.99 for head in shares[0])


def test_a_budget_without_a_cost_is_refused(tmp_path: Path, base: Recipe) -> None:
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))
    with pytest.raises(SearchError, match="--cost"):
        search(space, trainer(tmp_path), tmp_path, (1, 1), 0.1, [], [1.0], None, "")


def test_a_shipped_model_serves_as_the_teacher(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path / "runs")(base).run()
    export(base, tmp_path / "runs", tmp_path / "models", 0)
    assert adopt(base, tmp_path / "adopted", tmp_path / "models") == 0
    (first, _), _ = run(tmp_path / "runs", base)
    (second, _), _ = run(tmp_path / "adopted", base)
    assert first == second
    with pytest.raises(ValueError, match="another shape"):
        adopt(replace(base, config=first.config), tmp_path / "x", tmp_path / "models")


def test_a_missing_program_and_a_refusal_are_named(tmp_path: Path, base: Recipe) -> None:
    space = Space(base, (KINDS["scaling"], KINDS["relu"]))

    def plan(program: str) -> Plan:
        return Plan(program, space, tmp_path, None, [], "worlds", known={})

    with pytest.raises(SearchError, match="cargo build"):
        plan("no-such-program").ask(["plan"])
    with pytest.raises(SearchError, match="false plan refused"):
        plan("false").ask(["plan"])


def test_the_command_names_what_it_lacks(
    tmp_path: Path, base: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--runs", str(tmp_path / "runs"), "--shipped", str(tmp_path / "none")]
    assert main(["search", base.name, "--device", "cpu", *where]) == 2
    assert "neither trained nor" in capsys.readouterr().err
    assert main(["search", base.name, "--kinds", "scaling,magic", *where]) == 2
    assert "'magic'" in capsys.readouterr().err


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
        tmp_path / "recall-softmax-search" / "final.pt", {"model": model.state_dict(), "seeds": [0]}
    )
    recipe = space.retrain_recipe("fused", ((0, 0, 0, 0, 0),), 1, "", False)
    alone = Encoder(recipe.config, 1)
    load_matching(alone, tmp_path / "recall-softmax-search" / "final.pt", [0])
    assert not hasattr(alone.blocks[0], "down") and alone.blocks[0].up.weight.shape == (1, 64, 64)
    x, _ = base.recall.episodes(1, 8)
    torch.testing.assert_close(
        alone.eval()(x.unsqueeze(0))[0], model(x.unsqueeze(0))[0], rtol=1e-4, atol=1e-4
    )


def test_removing_gelus_is_searched_and_named(tmp_path: Path, base: Recipe) -> None:
    trainer(tmp_path)(base).run()
    space = Space(base, (KINDS["scaling"], KINDS["relu"]), linearize=True)
    make = trainer(tmp_path)
    (_, none), (_, all_of_it) = search(
        space, make, tmp_path, (1, 1), 0.1, [(0.5, 0.0), (0.5, 1.0)], [], None, ""
    )
    assert none.name.endswith("mu0.5-gelu0") and "+" not in none.kinds
    assert all_of_it.kinds.endswith("+")
    affine = RECIPES["vit-fmnist-he1"]
    with pytest.raises(SearchError, match="no GELU"):
        Space(affine, (KINDS["scaling"], KINDS["relu"]), linearize=True)
