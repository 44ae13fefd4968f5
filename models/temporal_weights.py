"""Weights of the temporal module on disk: a plain `.npz` for use, and the checkpoints of its pretraining."""

import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.named_weights import WEIGHTS
from models.temporal import TemporalConfig, TemporalModule
from utils.archives import ZIP_START, damage_of
from utils.errors import CheckpointError
from utils.files import atomic_path
from utils.recorded import require_recorded

SHIPPED = WEIGHTS / "temporal_xxs" / "temporal_XXS.npz"
"""Of series of embeddings by the weights `xxs`."""
CONFIG = "config"
VERSION = 1


def write_temporal(path: str | Path, module: TemporalModule) -> str:
    """Write weights and config as arrays, atomically; returns the SHA-256 of the file."""
    state = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    about = json.dumps({"version": VERSION, **asdict(module.config)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{CONFIG: np.array(about)}, **state)
    return _written(path, buffer.getvalue())


def read_temporal(path: str | Path = SHIPPED) -> TemporalModule:
    """The module in a file that `write_temporal` wrote, in evaluation mode.

    Raises:
        CheckpointError: one line with the path: the file is missing, damaged, not the one on record, or holds
            something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights of a temporal module; check the path")
    data = path.read_bytes()
    require_recorded(path, data)
    if data[:2] == ZIP_START[:2] and (damage := damage_of(io.BytesIO(data))):
        raise CheckpointError(f"{path}: damaged or truncated ({damage}); fetch or write it again")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop(CONFIG)))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"{path}: damaged, or no weights of a temporal module; fetch it again") from error
    return _built(path, about, {name: torch.from_numpy(value) for name, value in arrays.items()}).eval()


def write_temporal_checkpoint(path: str | Path, module: TemporalModule, **content: Any) -> str:
    """Write weights, config and what a run needs to go on; returns the SHA-256 of the file."""
    about = {"version": VERSION, **asdict(module.config)}
    buffer = io.BytesIO()
    torch.save({CONFIG: about, "model_state": module.state_dict(), **content}, buffer)
    return _written(path, buffer.getvalue())


def read_temporal_checkpoint(path: Path, data: bytes) -> dict[str, Any]:
    """What `write_temporal_checkpoint` wrote, with the module under "module"; `path` names it in messages."""
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        about, state = content.pop(CONFIG), content.pop("model_state")
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: is not a checkpoint of a temporal module; check the folder") from error
    return {**content, "module": _built(path, about, state)}


def _built(path: Path, about: dict[str, Any], state: dict[str, torch.Tensor]) -> TemporalModule:
    about = dict(about)
    if (version := about.pop("version", None)) != VERSION:
        raise CheckpointError(f"{path}: is a temporal module of version {version}, not {VERSION}; update this project")
    try:
        module = TemporalModule(TemporalConfig(**about))
        module.load_state_dict(state, strict=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not hold the weights that its config describes; fetch it again") from error
    if spoiled := [name for name, value in state.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path}: holds NaN or infinite numbers in {spoiled[0]}; fetch or write it again")
    return module


def _written(path: str | Path, data: bytes) -> str:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
