"""Associative recall: n (key, value) pairs and one key to look up.

The sequence is one query token and n pair tokens; a pair is one token, so a single layer
of attention can do the task, and a layer without attention cannot: the mean over pairs
does not say which value goes with the key.
Episodes are defined bit for bit (splitmix64), so that Rust draws the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def mix64(z: int) -> int:
    """The splitmix64 finaliser of ``z + gamma``, modulo 2^64."""
    z = (z + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class SplitMix64:
    """Steele, Lea and Flood 2014: state += gamma, then the finaliser."""

    def __init__(self, state: int) -> None:
        self.state = state & _MASK

    def next(self) -> int:
        """The next 64 bits."""
        out = mix64(self.state)
        self.state = (self.state + _GAMMA) & _MASK
        return out

    def below(self, m: int) -> int:
        """A number below ``m``, from the upper 32 bits."""
        return ((self.next() >> 32) * m) >> 32


@dataclass(frozen=True)
class Recall:
    """Sizes of the task: keys, values and pairs in an episode."""

    keys: int
    values: int
    pairs: int

    @property
    def vocabulary(self) -> int:
        """A token for each pair and one for each queried key."""
        return self.keys * self.values + self.keys

    @property
    def length(self) -> int:
        """Tokens of an episode."""
        return self.pairs + 1

    def episode(self, seed: int, index: int) -> tuple[list[int], int]:
        """Tokens and label of episode ``index`` of ``seed``."""
        rng = SplitMix64(mix64(seed) ^ mix64((index + 1) | (1 << 63)))
        keys = list(range(self.keys))
        for j in range(self.pairs):
            other = j + rng.below(self.keys - j)
            keys[j], keys[other] = keys[other], keys[j]
        values = [rng.below(self.values) for _ in range(self.pairs)]
        asked = rng.below(self.pairs)
        tokens = [self.keys * self.values + keys[asked]]
        tokens += [keys[j] * self.values + values[j] for j in range(self.pairs)]
        return tokens, values[asked]

    def episodes(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` episodes: tokens [count, length] and labels [count]."""
        drawn = [self.episode(seed, i) for i in range(count)]
        tokens = np.array([t for t, _ in drawn], dtype=np.int64)
        labels = np.array([label for _, label in drawn], dtype=np.int64)
        return torch.from_numpy(tokens), torch.from_numpy(labels)

    def batch(self, rng: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """``count`` training episodes from a torch generator: the same distribution, faster."""
        order = torch.rand(count, self.keys, generator=rng, device=rng.device).argsort(1)
        keys = order[:, : self.pairs]
        values = torch.randint(self.values, (count, self.pairs), generator=rng, device=rng.device)
        asked = torch.randint(self.pairs, (count, 1), generator=rng, device=rng.device)
        query = self.keys * self.values + keys.gather(1, asked)
        tokens = torch.cat([query, keys * self.values + values], 1)
        return tokens, values.gather(1, asked)[:, 0]
