"""The float forward pass beside PyTorch on one thread: same model, same run.

    python3 model/benches/pytorch_peer.py

builds a vision transformer (dim 64, depth 4, 4 heads, 49 tokens) with PyTorch's random weights,
writes it as a model folder, lets `cargo bench` run it, checks that both compute the same logits,
and prints the ratio of medians. Rounds alternate, so a busy machine disturbs both sides alike.
PyTorch runs eagerly and, where it works, traced and frozen; the faster of the two counts.
"""

import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIM, DEPTH, HEADS, MLP, SIDE, PATCH, CLASSES, EPS = 64, 4, 4, 128, 28, 4, 10, 1e-6
ROUNDS = 5


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, EPS), nn.LayerNorm(DIM, EPS)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, MLP), nn.Linear(MLP, DIM)

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, n, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(a.transpose(1, 2).reshape(b, n, DIM))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, DIM, PATCH, PATCH)
        self.position = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2, DIM))
        self.blocks = nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(DIM, EPS), nn.Linear(DIM, CLASSES)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def save(model, folder):
    """The folder in timm's names; the safetensors format is a JSON header and raw values."""
    rename = {"patches": "patch_embed.proj", "position": "pos_embed"}
    tensors = {}
    for name, value in model.state_dict().items():
        first, _, rest = name.partition(".")
        name = ".".join(filter(None, [rename.get(first, first), rest]))
        for old, new in [("qkv", "attn.qkv"), ("proj", "attn.proj"), ("fc", "mlp.fc")]:
            name = name.replace(f".{old}", f".{new}") if name.startswith("blocks") else name
        tensors[name] = value.detach().contiguous()
    header, offset = {}, 0
    for name, value in tensors.items():
        end = offset + 4 * value.numel()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in tensors.values():
            file.write(value.numpy().tobytes())
    config = {
        "model_type": "vit", "image_size": SIDE, "patch_size": PATCH, "num_channels": 1,
        "hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
        "intermediate_size": MLP, "layer_norm_eps": EPS,
        "id2label": {str(i): str(i) for i in range(CLASSES)},
        "undertone": {"version": 1, "class_token": False},
    }
    (folder / "config.json").write_text(json.dumps(config))


def median_seconds(model, images):
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < 1.0:
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rust(folder):
    command = ["cargo", "bench", "-q", "-p", "undertone-model", "--bench", "float_forward", "--"]
    out = subprocess.run(command + [folder], cwd=ROOT, check=True, capture_output=True, text=True)
    logits, seconds = None, {}
    for line in out.stdout.splitlines():
        if line.startswith("logits"):
            logits = torch.tensor(json.loads(line.split(maxsplit=1)[1]))
        if line.startswith("batch"):
            _, batch, _, median = line.split()
            seconds[int(batch)] = float(median)
    return logits, seconds


@torch.inference_mode()
def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Vit().eval()
    image = torch.tensor([(i % 17) / 8 - 1 for i in range(SIDE * SIDE)]).view(1, 1, SIDE, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        save(model, pathlib.Path(folder))
        logits, _ = rust(folder)
        difference = (logits - model(image)[0]).abs().max().item()
        print(f"largest difference of a logit: {difference:.2e}")
        assert difference < 1e-5, "the two do not compute the same function"
        ours, eager, frozen = ({1: [], 64: []} for _ in range(3))
        for _ in range(ROUNDS):
            _, seconds = rust(folder)
            for batch in (1, 64):
                images = image.expand(batch, -1, -1, -1).contiguous()
                traced = torch.jit.freeze(torch.jit.trace(model, images))
                for _ in range(5):
                    traced(images)
                ours[batch].append(seconds[batch])
                eager[batch].append(median_seconds(model, images))
                frozen[batch].append(median_seconds(traced, images))
    print("batch  ours ms  eager ms  frozen ms  speed against PyTorch")
    for batch in (1, 64):
        o, e, z = (1e3 * statistics.median(side[batch]) for side in (ours, eager, frozen))
        print(f"{batch:5}  {o:7.3f}  {e:8.3f}  {z:9.3f}  {min(e, z) / o:21.2f}")


if __name__ == "__main__":
    main()
