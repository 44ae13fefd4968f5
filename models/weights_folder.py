"""Weights without pickle: a folder with `model.safetensors` beside the `config.json` that says what they are."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.config import from_record, to_record
from models.moe_mae import MOEMAE, count_parameters
from utils.checked_json import FIX, is_changed, write_checked_json
from utils.errors import CheckpointError, ConfigError
from utils.files import atomic_path, sha256
from utils.parsing import parse_json
from utils.recorded import require_recorded

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MADE_FROM = "made_from"
"""The checkpoint that the folder was made from, in `config.json`: file name and SHA-256."""
MODEL_TYPE = "moe_mae"
"""Says in `config.json` that the folder is of this project."""
FORMAT_VERSION = 1


def is_weights_folder(folder: Path) -> bool:
    """Whether a folder holds weights in this form."""
    return (folder / WEIGHTS_FILE).is_file() and (folder / CONFIG_FILE).is_file()


def write_weights_folder(folder: Path, model: MOEMAE, about: dict[str, Any]) -> None:
    """Write weights and config; every tensor once, in this project's names.

    Args:
        folder: gets the two files.
        model: on any device.
        about: more entries for `config.json`, of plain values.

    Raises:
        ConfigError: where the package safetensors is missing.
    """
    safetensors = require_safetensors(folder / WEIGHTS_FILE)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(safetensors.save(state, metadata={"format": "pt"}))
    written = folder / WEIGHTS_FILE
    config = {
        "model_type": MODEL_TYPE,
        "format": FORMAT_VERSION,
        "weights": {"file": WEIGHTS_FILE, "sha256": sha256(written), "parameters": count_parameters(model)},
        "model": to_record(model.config, model.masking),
        **about,
    }
    write_checked_json(folder / CONFIG_FILE, config)


def read_weights_folder(folder: Path) -> Checkpoint:
    """The weights of a folder, with the very bits that were written.

    Raises:
        CheckpointError: naming the file, when one is damaged, newer, of another project, or the two do not belong
            together.
        ConfigError: where the package safetensors is missing.
    """
    about = read_about(folder)
    path = folder / WEIGHTS_FILE
    try:
        config, masking = from_record(about["model"])
        recorded = about["weights"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: holds no usable config ({error}); fetch it again") from error
    safetensors = require_safetensors(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != recorded:
        raise CheckpointError(f"{path}: is not the file that {CONFIG_FILE} belongs to (sha256); fetch both again")
    require_recorded(path, data)
    try:
        state = safetensors.load(data)
    except Exception as error:  # the package's own errors share no base class with anything
        raise CheckpointError(f"{path}: damaged or truncated ({error}); fetch it again") from error
    with torch.device("meta"):
        expected = MOEMAE(config, masking).state_dict()
    _require_same_entries(path, state, expected)
    return Checkpoint(path, config, masking, state, published=False, content={})


def read_about(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder. Raises CheckpointError naming it."""
    path = folder / CONFIG_FILE
    try:
        about = parse_json(path.read_text(encoding="utf-8"))
        kind, version = about["model_type"], int(about["format"])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not the config of a model of this project; check the folder") from error
    if is_changed(about):
        raise CheckpointError(f"{path}: is not what was written there; {FIX}")
    if kind != MODEL_TYPE:
        raise CheckpointError(f"{path}: describes a model of type {kind!r}, not {MODEL_TYPE!r}; check the folder")
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{path}: written by a newer version (format {version}); update this project")
    return about


def require_safetensors(path: Path) -> Any:
    """The module `safetensors.torch`. Raises ConfigError where it is missing; `path` is what needs it."""
    try:
        import safetensors.torch
    except ImportError:
        raise ConfigError(f"{path}: needs the package safetensors (pip install safetensors)") from None
    return safetensors.torch


def _require_same_entries(path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if different := sorted(state.keys() ^ expected.keys()):
        kind = "has unexpected" if different[0] in state else "lacks"
        raise CheckpointError(f"{path}: {kind} {different[0]} ({len(different)} entries differ); fetch it again")
    for name, value in state.items():
        if value.shape != expected[name].shape or value.dtype != torch.float32:
            found = f"{name} is {value.dtype} {tuple(value.shape)}"
            raise CheckpointError(f"{path}: {found}, expected float32 {tuple(expected[name].shape)}; fetch it again")
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: holds NaN or infinite numbers in {name}; fetch or write it again")
