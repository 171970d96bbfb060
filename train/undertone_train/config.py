"""The shape of a model and its ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .attention import Head


@dataclass(frozen=True)
class Layer:
    """One encoder layer: a head each, the norm and the activation."""

    heads: tuple[Head, ...]
    norm: str = "layer_norm"
    """"layer_norm", or "affine": trained as BatchNorm, folded on export."""
    activation: str = "gelu"
    """"gelu", "relu", "quadratic", "identity"; "sign": both inputs of the MLP's products are ±1."""
    mlp: str = "full"
    """"full", or "fused": the activation of one square product, MPCViT+'s MLP without GELU."""
    weights: str = "float"
    """"float", or "sign": one bit a weight with a scale a channel (see ``binary.py``)."""


@dataclass(frozen=True)
class Config:
    """What ``config.json`` says. Sizes are in elements."""

    model_type: str
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    layers: tuple[Layer, ...]
    labels: tuple[str, ...]
    layer_norm_eps: float = 1e-6
    pooling: str = "mean"
    norm_position: str = "pre"
    class_token: bool = False
    # vit
    image_size: int = 28
    patch_size: int = 4
    num_channels: int = 1
    pixel_mean: tuple[float, ...] = (0.286,)
    pixel_std: tuple[float, ...] = (0.353,)
    # bert
    vocab_size: int = 0
    max_position_embeddings: int = 0
    task: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads"
            )
        for layer in self.layers:
            if len(layer.heads) != self.num_attention_heads:
                raise ValueError(
                    f"{len(layer.heads)} head entries for {self.num_attention_heads} heads"
                )

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Tokens that a ViT sees: the patches and, where there is one, the class token."""
        return self.patches + int(self.class_token)

    @property
    def final_norm(self) -> str:
        """The norm after the last layer has the kind of the last layer's norms."""
        return self.layers[-1].norm

    def to_json(self) -> dict[str, Any]:
        """``config.json`` as a dictionary, in the order of ``docs/model-format.md``."""
        out: dict[str, Any] = {"model_type": self.model_type}
        if self.model_type == "vit":
            out |= {
                "image_size": self.image_size,
                "patch_size": self.patch_size,
                "num_channels": self.num_channels,
            }
        else:
            out |= {
                "vocab_size": self.vocab_size,
                "max_position_embeddings": self.max_position_embeddings,
                "type_vocab_size": 1,
            }
        out |= {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": len(self.layers),
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "gelu",
            "layer_norm_eps": self.layer_norm_eps,
        }
        if self.model_type == "vit":
            out["qkv_bias"] = True
        out["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
        block: dict[str, Any] = {"version": 1}
        if self.model_type == "vit":
            block["class_token"] = self.class_token
        block |= {"pooling": self.pooling, "norm_position": self.norm_position}
        if self.model_type == "vit":
            block |= {"pixel_mean": list(self.pixel_mean), "pixel_std": list(self.pixel_std)}
        if self.task:
            block["task"] = self.task
        block["layers"] = []
        for layer in self.layers:
            entry: dict[str, Any] = {
                "heads": [head.to_json() for head in layer.heads],
                "norm": layer.norm,
                "activation": layer.activation,
            }
            if layer.mlp != "full":
                entry["mlp"] = layer.mlp
            if layer.weights != "float":
                entry["weights"] = layer.weights
            block["layers"].append(entry)
        return out | {"undertone": block}
