"""The layout of the published checkpoints: its parameter names, both ways, and the config that its shapes tell."""

import math
import re
from collections import OrderedDict

import torch
from torch import Tensor

from models.config import SIZES, ModelConfig
from models.moe_mae import MOEMAE
from utils.errors import CheckpointError
from utils.metadata import PUBLISHED_FIELDS

# The published layout keeps one Linear per expert and repeats the shared V and W2 under every expert; this model
# stacks W (E * d rows) and holds V and W2 once. `patch_embed` is a second name of the encoder's patch projection.
_STACKED = re.compile(r"^(?P<layer>(?:encoder\.)?(?:decoder_)?layers\.\d+\.moe\.experts)\.W\.(?P<part>weight|bias)$")
_SHARED = re.compile(r"^(?P<layer>.*\.moe\.experts)\.(?P<name>V|W2)\.(?P<part>weight|bias)$")
_ALIASES = {f"encoder.patch_proj.{part}": f"patch_embed.{part}" for part in ("weight", "bias")}


def _published_names(name: str, config: ModelConfig) -> list[str]:
    """The published name or names of one of our parameters, in expert order where there are several."""
    if match := _STACKED.match(name):
        return [f"{match['layer']}.{e}.W.{match['part']}" for e in range(_experts_of(name, config))]
    if match := _SHARED.match(name):
        return [f"{match['layer']}.{e}.{match['name']}.{match['part']}" for e in range(_experts_of(name, config))]
    return [name, _ALIASES[name]] if name in _ALIASES else [name]


def _experts_of(name: str, config: ModelConfig) -> int:
    if name.startswith("decoder_layers."):
        return config.decoder_experts
    return config.experts[int(name.split(".")[2])]


def to_published(state: dict[str, Tensor], config: ModelConfig) -> "OrderedDict[str, Tensor]":
    """This project's state dict in the published layout; repeated entries share memory."""
    published: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in state.items():
        targets = _published_names(name, config)
        pieces = value.chunk(len(targets)) if _STACKED.match(name) else [value] * len(targets)
        published.update(zip(targets, pieces, strict=True))
    return published


def from_published(published: dict[str, Tensor], config: ModelConfig, source: str = "model_state") -> dict[str, Tensor]:
    """A state dict in the published layout as this project's; nothing missing, unexpected or guessed.

    Raises:
        CheckpointError: naming `source` and the entries that are missing, unexpected, of another shape, or that
            should be copies of one shared tensor and differ.
    """
    try:
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in MOEMAE(config).state_dict().items()}
    except (ValueError, RuntimeError, ArithmeticError, TypeError) as error:
        raise CheckpointError(f"{source}: its config describes no model that can be built ({error})") from error
    wanted = {name: _published_names(name, config) for name in shapes}
    names = {target for targets in wanted.values() for target in targets}
    _refuse(source, "lacks", sorted(names - published.keys()))
    _refuse(source, "has unexpected", sorted(published.keys() - names))
    misshapen = []
    for name, targets in wanted.items():
        rows, *rest = shapes[name] if shapes[name] else (1,)
        expected = (rows // len(targets), *rest) if _STACKED.match(name) else (rows, *rest)
        misshapen += [f"{t} {tuple(published[t].shape)}" for t in targets if tuple(published[t].shape) != expected]
    _refuse(source, f"does not fit a model of size {config.size}:", misshapen)
    state = {}
    for name, targets in wanted.items():
        pieces = [published[target] for target in targets]
        if _STACKED.match(name):
            state[name] = torch.cat(pieces)
            continue
        state[name] = pieces[0]
        different = [t for t, piece in zip(targets, pieces, strict=True) if not torch.equal(piece, pieces[0])]
        _refuse(source, f"should repeat {targets[0]} but differs in", different)
    return state


def _refuse(source: str, problem: str, names: list[str]) -> None:
    if names:
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise CheckpointError(f"{source}: {problem} {listed}; it is not a whole checkpoint of this model")


def infer_config(state: dict[str, Tensor], source: str = "model_state") -> ModelConfig:
    """The config of a published file, read from the shapes of its weights.

    Width and depth must be those of a published size, since head counts leave no trace in the shapes.

    Raises:
        CheckpointError: when they are not.
    """
    try:
        dim, channels, patch, _ = state["encoder.patch_proj.weight"].shape
        patches = max(0, state["encoder.pos_embed"].shape[1] - len(PUBLISHED_FIELDS) - 1)
    except (LookupError, ValueError) as error:
        raise CheckpointError(f"{source}: is not a checkpoint of this model (no usable {error})") from error
    depth = len({name.split(".")[2] for name in state if name.startswith("encoder.layers.")})
    for size, numbers in SIZES.items():
        if (numbers["embed_dim"], numbers["depth"]) == (dim, depth):
            numbers = {"img_size": math.isqrt(patches) * patch, "patch_size": patch, "in_channels": channels}
            try:
                return ModelConfig.of_size(size, **numbers, published_behaviour=True)
            except ValueError as error:
                raise CheckpointError(f"{source}: is not a checkpoint of this model ({error})") from error
    raise CheckpointError(f"{source}: width {dim} and depth {depth} are not those of a published size")
