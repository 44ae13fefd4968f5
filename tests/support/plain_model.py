"""An independent model of the paper, in plain loops and float64, that the real one is compared with.

It shares no code with `models/`: it reads weights by their published names, loops over heads, tokens and experts,
repeats nothing and fuses nothing. Slow by design.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]


class Shape(NamedTuple):
    """The numbers of size XXS that leave no trace in the weights."""

    depth: int = 9
    heads: int = 6
    groups: int = 3
    decoder_depth: int = 2
    decoder_heads: int = 6
    decoder_groups: int = 3
    k: int = 2
    patch: int = 4


class Pass(NamedTuple):
    tokens: Tensor
    pre_norm: Tensor
    balance: Tensor


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w: Weights, name: str, x: Tensor, heads: int, groups: int) -> Tensor:
    """(S, D) of one image; head h reads group h mod groups."""
    q, k, v = (linear(w, f"{name}.{part}_proj", x) for part in "qkv")
    d = q.shape[-1] // heads
    outputs = []
    for h in range(heads):
        g = h % groups
        qh, kh, vh = q[:, h * d : (h + 1) * d], k[:, g * d : (g + 1) * d], v[:, g * d : (g + 1) * d]
        scores = (qh @ kh.T / math.sqrt(d)).exp()
        outputs.append(scores / scores.sum(-1, keepdim=True) @ vh)
    return linear(w, f"{name}.out_proj", torch.cat(outputs, dim=-1))


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def swiglu(w: Weights, name: str, x: Tensor) -> Tensor:
    return linear(w, f"{name}.W2", silu(linear(w, f"{name}.W", x)) * linear(w, f"{name}.V", x))


def count_experts(w: Weights, name: str) -> int:
    return sum(1 for key in w if key.startswith(f"{name}.experts.") and key.endswith(".W.bias"))


def route(w: Weights, name: str, token: Tensor, k: int) -> tuple[dict[int, Tensor], Tensor]:
    """Gate values of the chosen experts of one token, and all its logits."""
    logits = linear(w, f"{name}.gate.Wg", token)
    order = sorted(range(len(logits)), key=lambda e: -logits[e].item())[:k]
    weights = [logits[e].exp() for e in order]
    return {e: value / sum(weights) for e, value in zip(order, weights, strict=True)}, logits


def moe(w: Weights, name: str, x: Tensor, k: int) -> Tensor:
    """(T, D), token by token, expert by expert."""
    rows = []
    for token in x:
        gates, _ = route(w, name, token, k)
        rows.append(sum(gate * swiglu(w, f"{name}.experts.{e}", token) for e, gate in gates.items()))
    return torch.stack(rows)


def variation(values: list[Tensor]) -> Tensor:
    stacked = torch.stack(values)
    mean = stacked.mean()
    return ((stacked - mean).square().mean()).sqrt() / (mean + 1e-6)


def balance(w: Weights, name: str, x: Tensor, k: int, published: bool) -> Tensor:
    """0.01 CV(importance) + 0.01 CV(load) of (T, D) tokens."""
    experts = count_experts(w, name)
    importance = [x.new_zeros(())] * experts
    load = [x.new_zeros(())] * experts
    for token in x:
        gates, logits = route(w, name, token, k)
        std = (1 + linear(w, f"{name}.gate.Wnoise", token).exp()).log()
        ranked = sorted(range(experts), key=lambda e: -logits[e].item())
        for e in range(experts):
            if e in gates:
                importance[e] = importance[e] + gates[e]
            others = [f for f in ranked if f != e]
            threshold = logits[others[k - 1]]
            if published:  # the other one of the k-th and (k + 1)-th of all
                threshold = logits[ranked[k - 1]] if e in gates else logits[ranked[k]]
            load[e] = load[e] + 0.5 * (1 + torch.erf((logits[e] - threshold) / std[e] / math.sqrt(2)))
    return 0.01 * variation(importance) + 0.01 * variation(load)


def blocks(
    w: Weights, prefix: str, depth: int, heads: int, groups: int, k: int, images: list[Tensor], published: bool
) -> tuple[list[Tensor], Tensor]:
    """Run (S, D) sequences through a stack of blocks; also the sum of balance losses."""
    total = images[0].new_zeros(())
    for i in range(depth):
        name = f"{prefix}.{i}"
        images = [x + attention(w, f"{name}.attn", layer_norm(w, f"{name}.norm1", x), heads, groups) for x in images]
        normed = [layer_norm(w, f"{name}.norm2", x) for x in images]
        total = total + balance(w, f"{name}.moe", torch.cat(normed), k, published)
        images = [x + moe(w, f"{name}.moe", n, k) for x, n in zip(images, normed, strict=True)]
    return images, total


def cut(image: Tensor, p: int) -> list[Tensor]:
    """(C, H, W) to flat (C, p, p) patches, row by row."""
    _, H, W = image.shape
    return [image[:, i : i + p, j : j + p].reshape(-1) for i in range(0, H, p) for j in range(0, W, p)]


def encode(
    w: Weights, shape: Shape, images: Tensor, meta: Tensor, keep: list[list[int]], published: bool = False
) -> Pass:
    """(B, C, H, W) images, (B, 4, 2) metadata and the kept patches of each image to tokens."""
    kernel, positions = w["encoder.patch_proj.weight"].flatten(1), w["encoder.pos_embed"][0]
    sequences = []
    for image, rows, kept in zip(images, meta, keep, strict=True):
        tokens = [
            linear(w, f"encoder.{n}_proj", row) for n, row in zip(("week", "hour", "lat", "lon"), rows, strict=True)
        ]
        tokens.append(w["encoder.cls_token"][0, 0])
        tokens = [token + positions[i] for i, token in enumerate(tokens)]
        patches = cut(image, shape.patch)
        tokens += [kernel @ patches[i] + w["encoder.patch_proj.bias"] + positions[5 + i] for i in kept]
        sequences.append(torch.stack(tokens))
    sequences, total = blocks(
        w, "encoder.layers", shape.depth, shape.heads, shape.groups, shape.k, sequences, published
    )
    pre_norm = torch.stack(sequences)
    return Pass(layer_norm(w, "encoder.norm", pre_norm), pre_norm, total)


def decode(w: Weights, shape: Shape, tokens: Tensor, keep: list[list[int]], patches: int) -> Tensor:
    """Tokens after the norm to (B, N, C * p * p) predictions."""
    sequences = []
    for sequence, kept in zip(tokens, keep, strict=True):
        embedded = linear(w, "decoder_embed", sequence)
        rows = [w["mask_token"][0, 0]] * patches
        for at, index in enumerate(kept):
            rows[index] = embedded[5 + at]
        rows = [row + w["decoder_pos_embed"][0, i] for i, row in enumerate(rows)]
        sequences.append(torch.cat([embedded[:5], torch.stack(rows)]))
    sequences, _ = blocks(
        w, "decoder_layers", shape.decoder_depth, shape.decoder_heads, shape.decoder_groups, 2, sequences, False
    )
    return torch.stack([linear(w, "decoder_pred", layer_norm(w, "decoder_norm", x[5:])) for x in sequences])


def loss(
    w: Weights, shape: Shape, images: Tensor, meta: Tensor, keep: list[list[int]], published: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Total, masked, visible and balance loss of a batch, noise and dropout off."""
    encoded = encode(w, shape, images, meta, keep, published)
    targets = [cut(image, shape.patch) for image in images]
    predicted = decode(w, shape, encoded.tokens, keep, len(targets[0]))
    masked, visible = [], []
    for b, kept in enumerate(keep):
        for i, target in enumerate(targets[b]):
            (visible if i in kept else masked).append((predicted[b, i] - target).square().sum())
    m, v = torch.stack(masked).mean(), torch.stack(visible).mean()
    return m + 0.1 * v + 0.5 * encoded.balance, m, v, encoded.balance
