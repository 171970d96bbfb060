"""The task's generator, bit for bit."""

import json
from pathlib import Path

import torch

from undertone_train.golden import recall_cases
from undertone_train.recall import Recall, SplitMix64

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "recall.json"


def test_splitmix64_gives_its_published_stream() -> None:
    rng = SplitMix64(1234567)
    assert [rng.next() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_episodes_are_solvable_and_keys_distinct() -> None:
    task = Recall(keys=8, values=4, pairs=5)
    for index in range(200):
        tokens, label = task.episode(3, index)
        keys = [t // 4 for t in tokens[1:]]
        assert len(set(keys)) == 5
        asked = tokens[0] - 32
        assert tokens[1 + keys.index(asked)] % 4 == label


def test_training_batches_are_solvable_too() -> None:
    task = Recall(keys=8, values=4, pairs=5)
    tokens, labels = task.batch(torch.Generator().manual_seed(1), 300)
    keys, asked = tokens[:, 1:] // 4, tokens[:, :1] - 32
    hit = keys == asked
    assert (hit.sum(1) == 1).all()
    assert ((tokens[:, 1:] % 4)[hit] == labels).all()
    assert all(len(set(row)) == 5 for row in keys.tolist())


def test_the_committed_golden_file_is_current() -> None:
    assert json.loads(GOLDEN.read_text()) == recall_cases()
