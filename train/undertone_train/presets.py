"""Searches with a name: what ``undertone-train search NAME`` is given unless it says otherwise."""

from __future__ import annotations

from typing import Any

_MPCVIT: dict[str, Any] = {
    "base": "cifar10-softmax",
    "kinds": "scaling,relu",
    "search_epochs": 300,
    "epochs": 600,
    # 1e-5 times the sum of 7 × 4 shares.
    "weight": 2.8e-4,
    "scratch": True,
}

SEARCHES: dict[str, dict[str, Any]] = {
    "cifar10-mpcvit": _MPCVIT | {"mu": "0.1,0.3,0.5,0.7"},
    "cifar10-mpcvit-labels": _MPCVIT | {"mu": "0.1,0.3,0.5,0.7", "labels": True},
    "cifar10-mpcvit-plus": _MPCVIT | {"mu": "0.3,0.7", "gelu": "0.286,0.714"},
}
"""MPCViT's on CIFAR-10, as published: distilled, without its teacher, and MPCViT+ twice."""
