"""Encoders against plain PyTorch, replicas against themselves, exports against both."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from undertone_train.config import Config, Layer
from undertone_train.export import tensors
from undertone_train.model import BatchNorm, Encoder, initialise
from undertone_train.read import read_model
from undertone_train.recipes import MIXES, RECIPES, replace


def small(**changes: object) -> Config:
    base = Config(
        model_type="vit",
        hidden_size=16,
        num_attention_heads=4,
        intermediate_size=24,
        layers=(Layer(MIXES["softmax"]), Layer(MIXES["hetero"], "affine", "quadratic")),
        labels=("a", "b", "c"),
        image_size=8,
    )
    return replace(base, **changes)  # type: ignore[type-var]


def made(config: Config, seeds: list[int]) -> Encoder:
    model = Encoder(config, len(seeds))
    initialise(model, seeds)
    return model.double()


def test_a_seed_does_not_depend_on_its_neighbours() -> None:
    x = torch.randn(1, 3, 1, 8, 8, dtype=torch.float64)
    both, _ = made(small(), [4, 5]).eval()(x.expand(2, -1, -1, -1, -1))
    alone, _ = made(small(), [5]).eval()(x)
    torch.testing.assert_close(both[1], alone[0])


def test_patches_are_a_convolution() -> None:
    model = made(small(), [0])
    x = torch.randn(1, 2, 1, 8, 8, dtype=torch.float64)
    named = tensors(model, 0)
    stem = "vit.embeddings.patch_embeddings.projection"
    conv = F.conv2d(x[0], named[f"{stem}.weight"], named[f"{stem}.bias"], stride=4)
    expected = conv.flatten(2).transpose(1, 2) + named["vit.embeddings.position_embeddings"]
    torch.testing.assert_close(model.embed(x)[0], expected)


def test_a_block_is_a_pre_norm_transformer() -> None:
    model = made(small(layers=(Layer(MIXES["softmax"]),)), [0]).eval()
    n = {k.replace("vit.encoder.layer.0.", ""): t for k, t in tensors(model, 0).items()}
    x = torch.randn(2, 4, 16, dtype=torch.float64)

    def linear(name: str, t: torch.Tensor) -> torch.Tensor:
        return F.linear(t, n[f"{name}.weight"], n[f"{name}.bias"])

    def ln(name: str, t: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(t, (16,), n[f"{name}.weight"], n[f"{name}.bias"], 1e-6)

    normed = ln("layernorm_before", x)
    q, k, v = (
        linear(f"attention.attention.{p}", normed).view(2, 4, 4, 4).transpose(1, 2)
        for p in ("query", "key", "value")
    )
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 4, 16)
    h = x + linear("attention.output.dense", mixed)
    up = F.gelu(linear("intermediate.dense", ln("layernorm_after", h)))
    expected = h + linear("output.dense", up)
    torch.testing.assert_close(model.blocks[0](x.unsqueeze(0), None)[0][0], expected)


def test_a_folded_batch_norm_is_the_batch_norm() -> None:
    ours, theirs = BatchNorm(1, 5, 1e-5, 0.1).double(), torch.nn.BatchNorm1d(5).double()
    x = torch.randn(40, 5, dtype=torch.float64) * 3 + 1
    torch.testing.assert_close(ours(x[None, :, None])[0, :, 0], theirs(x))
    var = x.var(0, correction=0)
    torch.testing.assert_close(ours.running_mean[0], 0.1 * x.mean(0))
    torch.testing.assert_close(ours.running_var[0], 0.9 + 0.1 * var)
    ours.eval()
    weight, bias = ours.folded()
    torch.testing.assert_close(ours(x[None, :, None])[0, :, 0], x * weight[0] + bias[0])


def test_model_gradients_match_finite_differences() -> None:
    model = made(small(), [0]).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("quadratic.a", "norm1.weight", "query.bias")))
    x = torch.randn(1, 2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: model(t)[0], (x,))


@pytest.mark.parametrize(
    "recipe",
    [
        "vit-fmnist-hetero",
        "vit-fmnist-he1",
        "vit-fmnist-ecoformer",
        "vit-fmnist-bivit-full",
        "recall-power2",
        "recall-bivit",
    ],
)
def test_an_exported_folder_computes_the_same(recipe: str, tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    config = RECIPES[recipe].config
    model = Encoder(config, 1)
    initialise(model, [3])
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    if config.layers[0].heads[0].kind == "ecoformer":
        for parameter in model.blocks.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_file(tensors(model, 0), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    if config.model_type == "vit":
        x = torch.randn(1, 3, 1, 28, 28, dtype=torch.float64)
    else:
        x = torch.randint(config.vocab_size, (1, 3, config.max_position_embeddings))
    expected, _ = model.eval().double()(x)
    found, _ = read_model(tmp_path)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
