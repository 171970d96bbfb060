"""Every model that ships, as data: its shape, its task and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .attention import Head
from .augment import Augment
from .config import Config, Layer
from .data import CIFAR_LABELS, FASHION_LABELS
from .recall import Recall


@dataclass(frozen=True)
class Recipe:
    """A model and its training. Rates are per step, weights multiply loss terms."""

    name: str
    task: str
    """"fmnist", "cifar10" or "recall"."""
    config: Config
    epochs: int
    steps: int = 117
    """Steps of an epoch: 117 × 512 images of 60,000."""
    batch: int = 512
    rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.98)
    decay: float = 0.05
    warmup: float = 0.05
    smoothing: float = 0.05
    clip: float = 1.0
    augment: Augment = field(default_factory=Augment)
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    """Stochastic depth of the last layer; the others grow to it evenly from 0."""
    row_weight: float = 0.0
    activation_weight: float = 0.0
    start: str | None = None
    """Recipe whose trained weights this one starts from."""
    teacher: str | None = None
    """Recipe whose logits are distilled, half and half with the labels."""
    label_share: float = 0.5
    """With a teacher: how much of the classification loss is on labels, the rest on its logits."""
    token_weight: float = 0.0
    """Weight of the squared distance to the teacher's final tokens."""
    candidates: tuple[Head, ...] = ()
    """A search: every head is a blend of these, cheapest first (see ``search.py``)."""
    linearize: bool = False
    """A search: every MLP is a blend of itself and of one without GELU."""
    blend_weight: float = 0.0
    """A search: weight of the blend's mean share of each candidate times its rank in cost."""
    made_by: str = ""
    """The command that makes this recipe, where it is not ``undertone-train run``."""
    every: int = 10
    """Epochs between evaluations and checkpoints."""

    @property
    def recall(self) -> Recall:
        """The task's sizes, for "recall"."""
        t = self.config.task
        return Recall(t["keys"], t["values"], t["pairs"])


SOFTMAX = Head("softmax")
POWER2 = Head("power", p=2, eps=1e-3)
POWER4 = Head("power", p=4, eps=1e-3)
RELU = Head("relu_softmax", eps=1e-5)
SCALING = Head("scaling")
UNIFORM = Head("uniform")

KINDS: dict[str, Head] = {
    "softmax": SOFTMAX,
    "power2": POWER2,
    "power4": POWER4,
    "relu": RELU,
    "scaling": SCALING,
    "two_quad": Head("two_quad", eps=1e-5),
    "relu_squared": Head("relu_squared"),
    "uniform": UNIFORM,
}
"""What a search chooses from, by short names."""

MIXES: dict[str, tuple[Head, ...]] = {
    "softmax": (SOFTMAX,) * 4,
    "power2": (POWER2,) * 4,
    "power4": (POWER4,) * 4,
    "hetero": (RELU, RELU, SCALING, SCALING),
    "uniform": (UNIFORM,) * 4,
    "scaling": (SCALING,) * 4,
    "relu": (RELU,) * 4,
    "mix": (SOFTMAX, SOFTMAX, SCALING, SCALING),
}


def _fashion(layers: tuple[Layer, ...]) -> Config:
    return Config(
        model_type="vit",
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        layers=layers,
        labels=FASHION_LABELS,
    )


def _cifar(name: str) -> Recipe:
    """MPCViT's ``vit_7_4_32`` (Zeng et al. 2023) and its training, as far as it is followed.

    Dropout is on attention weights alone, stochastic depth grows to 0.1. Two things differ: the
    original adds the MLP to the normed stream, here as elsewhere to the stream itself, and its
    RandAugment is shifts of up to 4 pixels here.
    """
    config = Config(
        model_type="vit",
        hidden_size=256,
        num_attention_heads=4,
        intermediate_size=512,
        layers=(Layer(MIXES[name]),) * 7,
        labels=CIFAR_LABELS,
        pooling="first",
        class_token=True,
        image_size=32,
        num_channels=3,
        pixel_mean=(0.4914, 0.4822, 0.4465),
        pixel_std=(0.2470, 0.2435, 0.2616),
    )
    return Recipe(
        name=f"cifar10-{name}",
        task="cifar10",
        config=config,
        epochs=600,
        steps=390,
        batch=128,
        rate=6e-4,
        betas=(0.9, 0.999),
        decay=0.06,
        warmup=10 / 600,
        smoothing=0.1,
        augment=Augment(shift=4, erase=0.25, mixup=0.8),
        attention_dropout=0.1,
        drop_path=0.1,
        every=5,
    )


def _recall(heads: tuple[Head, ...]) -> Config:
    task = Recall(keys=64, values=16, pairs=24)
    return Config(
        model_type="bert",
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        layers=(Layer(heads),),
        labels=tuple(str(i) for i in range(task.values)),
        layer_norm_eps=1e-6,
        pooling="first",
        norm_position="post",
        vocab_size=task.vocabulary,
        max_position_embeddings=task.length,
        task={"name": "recall", "keys": task.keys, "values": task.values, "pairs": task.pairs},
    )


def _recall_recipe(name: str, heads: tuple[Head, ...]) -> Recipe:
    return Recipe(
        name=f"recall-{name}",
        task="recall",
        config=_recall(heads),
        epochs=30,
        steps=100,
        batch=256,
        smoothing=0.0,
        decay=0.01,
        every=5,
    )


def _build() -> dict[str, Recipe]:
    recipes: list[Recipe] = []
    for name in ("softmax", "power2", "power4", "hetero", "uniform"):
        heads = MIXES[name]
        recipes.append(
            Recipe(
                name="vit-fmnist" if name == "softmax" else f"vit-fmnist-{name}",
                task="fmnist",
                config=_fashion((Layer(heads),) * 4),
                epochs=120,
                row_weight=0.1 if name.startswith("power") else 0.0,
            )
        )
    for name in ("softmax", "power2", "power4", "hetero", "uniform", "scaling"):
        recipes.append(_recall_recipe(name, MIXES[name]))
    for depth in (1, 2):
        recipes.append(
            Recipe(
                name=f"vit-fmnist-he{depth}",
                task="fmnist",
                config=_fashion((Layer((POWER2,) * 4, "affine", "quadratic"),) * depth),
                epochs=120,
                row_weight=0.1,
                activation_weight=0.01,
            )
        )
    recipes += [_cifar(name) for name in ("softmax", "relu", "scaling", "mix")]
    recipes += _binary()
    return {recipe.name: recipe for recipe in recipes}


def _binary() -> list[Recipe]:
    """Fine-tuned from the softmax model, which also teaches; controls get the same treatment."""

    def tuned(name: str, layer: Layer, start: str = "vit-fmnist") -> Recipe:
        return Recipe(
            name=f"vit-fmnist-{name}",
            task="fmnist",
            config=_fashion((layer,) * 4),
            epochs=75,
            rate=3e-3 if layer.weights == "sign" else 2e-3,
            start=start,
            teacher="vit-fmnist",
        )

    def recall(name: str, heads: tuple[Head, ...]) -> Recipe:
        base = _recall_recipe(name, heads)
        return replace(base, start="recall-softmax")

    eco = (Head("ecoformer", bits=16, variant="exact"),) * 4
    simhash = (Head("ecoformer", bits=16, variant="simhash"),) * 4
    bivit = (Head("bivit", beta=0.25, variant="mean", values="sign"),) * 4
    floating = (Head("bivit", beta=0.25, variant="mean", values="float"),) * 4
    published = (Head("bivit", beta=0.25, variant="sum", values="sign"),) * 4
    full = Layer(bivit, activation="sign", weights="sign")
    first = replace(
        tuned("bivit-full", full, "vit-fmnist-bivit-w1"),
        epochs=7,
        batch=128,
        steps=468,
        rate=2e-3,
        every=1,
    )
    return [
        tuned("tuned-uniform", Layer((UNIFORM,) * 4)),
        tuned("tuned-simhash", Layer(simhash)),
        tuned("ecoformer", Layer(eco)),
        tuned("ecoformer-w1", Layer(eco, weights="sign"), "vit-fmnist-ecoformer"),
        tuned("bivit", Layer(bivit)),
        tuned("bivit-float-v", Layer(floating)),
        tuned("bivit-sum", Layer(published)),
        tuned("bivit-w1", Layer(bivit, weights="sign"), "vit-fmnist-bivit"),
        first,
        # Its loss and its accuracy say that it underfits: it goes on with milder augmentation.
        replace(
            first,
            name="vit-fmnist-bivit-full-longer",
            start=first.name,
            epochs=14,
            augment=Augment(shift=1, erase=0.0),
        ),
        recall("ecoformer", eco),
        recall("simhash", simhash),
        recall("bivit", bivit),
        recall("bivit-sum", published),
    ]


RECIPES = _build()

__all__ = ["CIFAR_LABELS", "KINDS", "MIXES", "RECIPES", "Recipe", "replace"]
