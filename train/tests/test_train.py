"""The loop: it learns, resumes exactly, and refuses what does not fit."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from undertone_train import train
from undertone_train.augment import Augment, augment, normalise
from undertone_train.cli import main
from undertone_train.data import DataError, fashion_mnist, read_idx
from undertone_train.export import export
from undertone_train.model import Encoder, Linear
from undertone_train.read import read_model
from undertone_train.recipes import RECIPES, Recipe, replace
from undertone_train.table import table
from undertone_train.tasks import RecallTask, Sources
from undertone_train.train import Options, Trainer
from undertone_train.transfer import load_matching


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undertone_train.tasks.EVALUATION_EPISODES", 64)


def recipe(**changes: object) -> Recipe:
    return replace(  # type: ignore[type-var]
        RECIPES["recall-power2"], epochs=2, steps=6, batch=32, every=1, **changes
    )


def trainer(folder: Path, r: Recipe, seeds: list[int], deadline: float | None = None) -> Trainer:
    torch.set_num_threads(1)
    options = Options(folder, torch.device("cpu"), deadline=deadline)
    return Trainer(r, seeds, Sources({}), options)


def test_an_interrupted_run_ends_where_a_straight_one_does(tmp_path: Path) -> None:
    straight = trainer(tmp_path / "a", recipe(), [0, 1])
    assert straight.run()
    assert not trainer(tmp_path / "b", recipe(), [0, 1], deadline=0.0).run()
    resumed = trainer(tmp_path / "b", recipe(), [0, 1])
    assert resumed.run()
    assert torch.equal(straight.flat.values, resumed.flat.values)


def test_seeds_side_by_side_learn_what_they_learn_alone(tmp_path: Path) -> None:
    both = trainer(tmp_path / "a", recipe(), [0, 1])
    alone = trainer(tmp_path / "b", recipe(), [1])
    assert both.run() and alone.run()
    torch.testing.assert_close(both.flat.values[1], alone.flat.values[0], rtol=1e-3, atol=1e-4)


def test_the_loss_falls(tmp_path: Path) -> None:
    run = trainer(tmp_path, replace(recipe(), epochs=4, steps=25), [0])
    run.run()
    lines = (tmp_path / "recall-power2" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"][0] for line in lines[1:]]
    assert losses[-1] < losses[0] - 0.05


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(), [0], deadline=0.0).run()
    with pytest.raises(ValueError, match="another recipe or other seeds"):
        trainer(tmp_path, recipe(rate=1.0), [0]).run()


def test_a_finished_run_exports(tmp_path: Path) -> None:
    trainer(tmp_path / "runs", recipe(), [0, 1]).run()
    folder = export(recipe(), tmp_path / "runs", tmp_path / "models", 0)
    record = json.loads((folder / "training.json").read_text())
    assert record["seed"] == 0 and set(record["accuracy_percent"]) == {"0", "1"}
    assert read_model(folder).config == recipe().config
    assert "`recall-power2`" in table(tmp_path / "models")


def test_starting_from_an_untrained_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train recall-softmax first"):
        trainer(tmp_path, replace(RECIPES["recall-bivit"], steps=1), [0])


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.tobytes()


def test_idx_files_plain_and_gzipped(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    labels = np.array([1, 2], np.uint8)
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    split, _ = fashion_mnist(tmp_path)
    assert split.images.shape == (2, 1, 28, 28) and split.labels.tolist() == [1, 2]
    broken = tmp_path / "broken"
    broken.write_bytes(idx(images)[:-1])
    with pytest.raises(DataError, match="announces"):
        read_idx(broken)
    broken.write_bytes(b"not an idx file")
    with pytest.raises(DataError, match="no IDX"):
        read_idx(broken)
    with pytest.raises(DataError, match="missing"):
        read_idx(tmp_path / "absent")


def test_centred_draws_leave_an_image_alone_and_shifts_move_it() -> None:
    images = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    mean, std = torch.tensor([0.3]), torch.tensor([0.4])
    index = torch.tensor([[2, 0]])
    middle = torch.full((1, 2, 7), 0.5)
    plain = augment(images, index, middle, Augment(), mean, std)
    torch.testing.assert_close(plain[0], normalise(images[[2, 0]], mean, std))
    middle[..., 1] = 0.99  # two pixels to the left
    moved = augment(images, index, middle, Augment(), mean, std)
    torch.testing.assert_close(moved[..., :26], plain[..., 2:])
    torch.testing.assert_close(moved[..., 26:], torch.full((1, 2, 1, 28, 2), -0.75))
    middle[..., 1], middle[..., 2] = 0.5, 0.1
    flipped = augment(images, index, middle, Augment(), mean, std)
    torch.testing.assert_close(flipped, plain.flip(-1))


def test_evaluation_counts(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe(), [0])
    assert isinstance(run.task, RecallTask)
    accuracy = train.evaluate(run.model, run.task)[0]
    assert 0 <= accuracy <= 100 and run.model.training


def test_a_shipped_one_bit_model_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "vit-fmnist-bivit-full"
    folder = Path(__file__).parents[2] / "models" / "one-bit" / name
    assert main(["adopt", name, str(folder), "--runs", str(tmp_path)]) == 0
    longer = RECIPES[f"{name}-longer"]
    assert longer.start == name and longer.config == RECIPES[name].config
    model = Encoder(longer.config, 1)
    load_matching(model, tmp_path / name / "final.pt", [0])
    # The signs that ship, on weights that a few hundred steps of the recipe's rate can turn.
    for module in model.modules():
        if isinstance(module, Linear) and module.bits == "sign":
            centred = module.weight - module.weight.mean(-1, keepdim=True)
            size = centred.abs().mean(-1)
            assert (size <= 2 * module.scale.abs() + 1e-6).all()
    shipped = read_model(folder).float()
    x = torch.randn(1, 3, 1, 28, 28)
    torch.testing.assert_close(model.eval()(x)[0], shipped(x)[0])
    assert main(["adopt", "vit-fmnist", str(folder), "--runs", str(tmp_path)]) == 2
    assert "another shape" in capsys.readouterr().err
