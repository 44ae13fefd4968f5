"""Checkpoints: one format on disk, the published layout (`models.published_layout`), read strictly and safely.

A file holds the published keys (`epoch, model_state, opt_state, scaler_state, best_train_loss`). Ours carry one more
entry, `moe_mae` (format version, model config, and whatever a training run needs to go on). A file without it is a
published one and selects `published_behaviour` by itself.
"""

if __name__ == "__main__":  # before PyTorch is imported, which `--help` need not wait for
    from models.weights_command import command

    command()

import hashlib
import io
import pickle
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.config import ModelConfig, from_record, to_record
from models.masking import MASKING_KEYS, MaskingConfig
from models.moe_mae import MOEMAE
from models.published_layout import from_published, infer_config, to_published
from models.second_sensor import first_weights
from models.wrappings import other_kind, unwrapped
from utils.archives import ZIP_START, damage_of
from utils.errors import CheckpointError
from utils.files import atomic_path
from utils.recorded import require_recorded
from utils.reporting import reporter

FORMAT_VERSION = 1
EXTRA_KEY = "moe_mae"
REPLACED_WITHIN_SECONDS = 0.3
"""How long a checkpoint and its record may differ, while a training run replaces them."""


class Checkpoint(NamedTuple):
    """What a checkpoint, or a folder of weights without pickle, holds."""

    path: Path
    config: ModelConfig
    masking: MaskingConfig
    """Of the training."""
    model_state: dict[str, Tensor]
    """In this project's parameter names."""
    published: bool
    """True for a file without our extra entry."""
    content: dict[str, Any]
    """Everything else in the file, by its key."""

    def build(self, device: torch.device | str = "cpu") -> MOEMAE:
        """The model with these weights, in evaluation mode."""
        model = MOEMAE(self.config, self.masking)
        model.load_state_dict(self.model_state, strict=True)
        return model.to(device).eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint file, ours or a published one, without ever running code from it.

    The checksums of the file are compared, and its SHA-256 with those on record (`utils.recorded`).

    Raises:
        CheckpointError: one line with the path, when the file is missing, damaged, not the one on record, holds
            pickled objects, or its weights are not those of a model this project can build.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; check the path")
    if what := other_kind(path):
        raise CheckpointError(f"{path}: is {what}; give a checkpoint (.pth) of this model")
    try:
        data = path.read_bytes()
        require_recorded(path, data)
    except CheckpointError:
        time.sleep(REPLACED_WITHIN_SECONDS)  # a training run may just be replacing it and the record beside it
        data = path.read_bytes()
        require_recorded(path, data)
    return checkpoint_of(path, data)


def checkpoint_of(path: Path, data: bytes) -> Checkpoint:
    """What the bytes of a checkpoint file hold; `path` names it in messages. See `read_checkpoint`."""
    content = _load(path, data)
    state, wrapped = unwrapped(content)
    if wrapped:
        reporter.info(f"{path}: weights wrapped as {', '.join(wrapped)}; taken out of it")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no model_state; it is not a checkpoint of this model")
    if strange := [name for name, value in state.items() if not value.is_floating_point()]:
        raise CheckpointError(f"{path}: holds whole numbers where weights belong, in {strange[0]}; fetch it again")
    if spoiled := [name for name, value in state.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path}: holds NaN or infinite numbers in {spoiled[0]}; fetch or write it again")
    extra = content.get(EXTRA_KEY)
    if extra is None:
        config, masking = infer_config(state, str(path)), MaskingConfig()
    else:
        config, masking = _stored_config(extra, path)
    return Checkpoint(path, config, masking, from_published(state, config, str(path)), extra is None, content)


def write_checkpoint(
    path: str | Path,
    model: MOEMAE,
    *,
    epoch: int,
    best_train_loss: float,
    opt_state: dict[str, Any] | None = None,
    scaler_state: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> str:
    """Write `model` atomically in the published layout, with our extra entry; returns the SHA-256 of the bytes.

    Args:
        path: the file.
        model: its weights and config are stored.
        epoch: the last finished epoch, counted from 0 as in the published files.
        best_train_loss: as in the published files.
        opt_state, scaler_state: what the optimizer and the loss scaler need to go on; empty in files for use only.
        extra: plain values and tensors to add to our entry.
    """
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    content = {
        "epoch": epoch,
        "model_state": to_published(state, model.config),
        "opt_state": opt_state or {},
        "scaler_state": scaler_state or {},
        "best_train_loss": best_train_loss,
        EXTRA_KEY: {
            "version": FORMAT_VERSION,
            "config": to_record(model.config, model.masking),
            "published_behaviour": model.config.published_behaviour,
            **(extra or {}),
        },
    }
    buffer = io.BytesIO()  # torch.save turns a full disk into an internal error; a plain write does not
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _load(path: Path, data: bytes) -> dict[str, Any]:
    if data.startswith(ZIP_START):
        if damage := damage_of(io.BytesIO(data)):  # torch.load does not look at the archive's checksums
            raise CheckpointError(f"{path}: damaged or truncated ({damage}); fetch or write it again")
    else:
        reporter.info(f"{path}: is of an old form that has no checksums; nobody can say whether it is whole")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds pickled objects" if data.startswith(ZIP_START) else "it is not a PyTorch file"
        raise CheckpointError(
            f"{path}: refused, {reason}; give a checkpoint with tensors and plain values only"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or truncated; fetch or write it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint; give a .pth of this model")
    return content


def _stored_config(extra: Any, path: Path) -> tuple[ModelConfig, MaskingConfig]:
    try:
        version = extra["version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(f"{path}: written by a newer version (format {version}); update this project")
        return from_record(extra["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its {EXTRA_KEY} entry holds no usable config ({error})") from error


_NO_TRACE = ("dropout", "position_std", "position_start", "load_loss", "pool")
"""Fields of `ModelConfig` that the weights know nothing of."""


def load_model(
    path: str | Path,
    asked: dict[str, Any] | None = None,
    published_behaviour: bool | None = None,
    device: torch.device | str = "cpu",
) -> MOEMAE:
    """The model in a checkpoint file, in evaluation mode.

    Args:
        path: a file of ours or a published one.
        asked: fields of `ModelConfig` that the caller expects; None values expect nothing. `dropout`,
            `position_std`, `position_start`, `load_loss` and `pool` leave no trace in the weights and replace the
            stored ones, as `mask_ratio` and `mask_strategy` do; so does `missing_bands`, unless the weights hold
            vectors for it. A second one of `sensors` is added where the weights have none. Any other difference is an
            error.
        published_behaviour: None follows the file: its own setting, or True for a published one.
        device: where the model goes.

    Raises:
        CheckpointError: as `read_checkpoint`, or when the file holds another model than the one asked for.
    """
    return as_asked(read_checkpoint(path), asked, published_behaviour).build(device)


def as_asked(
    checkpoint: Checkpoint, asked: dict[str, Any] | None = None, published_behaviour: bool | None = None
) -> Checkpoint:
    """Weights with what leaves no trace in them as a caller wants it; see `load_model`."""
    path = checkpoint.path
    stored = asdict(checkpoint.config)
    asked = {key: value for key, value in (asked or {}).items() if value is not None}
    no_trace = _NO_TRACE if stored["missing_bands"] == "token" else (*_NO_TRACE, "missing_bands")
    free = {key: asked.pop(key) for key in no_trace if key in asked}
    masking = {key: asked.pop(key) for key in MASKING_KEYS if key in asked}
    if isinstance(asked.get("experts"), int):
        asked["experts"] = [asked["experts"]] * len(stored["experts"])
    asked = {key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()}
    if len(stored["sensors"]) == 1 and asked.get("sensors", ())[:1] == stored["sensors"]:
        free["sensors"] = asked.pop("sensors")
    differ = [f"model.{key} is {_shown(stored[key])}, not {_shown(value)}"
              for key, value in asked.items() if stored[key] != value]  # fmt: skip
    if differ:
        raise CheckpointError(
            f"{path}: holds another model than the config asks for ({'; '.join(differ)}); correct or leave out the key"
        )
    if published_behaviour is not None and published_behaviour != checkpoint.config.published_behaviour:
        reporter.info(
            f"{path}: was trained with published_behaviour: {not published_behaviour}; the config overrides it"
        )
        free["published_behaviour"] = published_behaviour
    elif checkpoint.published:
        reporter.info(f"{path}: a published checkpoint; using published_behaviour: true")
    config = checkpoint.config.replace(**free)
    if problems := config.problems():
        raise CheckpointError(f"{path}: cannot be used as asked (model.{problems[0][0]}: {problems[0][1]})")
    return checkpoint._replace(
        config=config,
        model_state=_with_second_sensor(_with_vectors_of_bands(checkpoint.model_state, config), config),
        masking=MaskingConfig.from_dict({**checkpoint.masking.to_dict(), **masking}),
    )


def _with_vectors_of_bands(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights that were trained without vectors for missing bands, with those that such a training begins with: 0."""
    name = "encoder.missing_bands"
    if config.missing_bands != "token" or name in state:
        return state
    return {**state, name: torch.zeros(config.in_channels, config.embed_dim)}


def _with_second_sensor(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights that were trained without a second sensor, with what its training begins with."""
    begun = len(config.sensors) == 1 or "decoder_pred_msi.weight" in state
    return state if begun else {**state, **first_weights(state)}


def _shown(value: Any) -> Any:
    """As a configuration file writes it."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else value
