"""What other tools put around a model's weights, and what files are that hold none."""

import zipfile
from pathlib import Path
from typing import Any

from utils.archives import DAMAGED

STATE_KEYS = ("model_state", "state_dict", "model_state_dict", "model", "module", "net")
"""Under which files hold the weights; the first is this project's and the published one."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Before every name: of DistributedDataParallel, `torch.compile`, and modules of a trainer."""
OWN_ENTRY = "encoder.pos_embed"
"""An entry that every state dict of this model has."""


def unwrapped(content: dict[str, Any]) -> tuple[Any, list[str]]:
    """The state dict of a file's content, which loses it, and what was around it, outermost first.

    None where there is no state dict.
    """
    around: list[str] = []
    key = next((key for key in STATE_KEYS if isinstance(content.get(key), dict)), None)
    if key is not None:
        state = content.pop(key)
        around += [f"{key}:"] if key != STATE_KEYS[0] else []
    elif any(str(name).endswith(OWN_ENTRY) for name in content):  # a bare state dict
        state = dict(content)
        content.clear()
    else:
        return content.pop(STATE_KEYS[0], None), []
    while (inner := next((key for key in STATE_KEYS if isinstance(state.get(key), dict)), None)) is not None:
        state = state[inner]
        around.append(f"{inner}:")
    while prefix := next((prefix for prefix in PREFIXES if state and _all_start(state, prefix)), None):
        state = type(state)((name[len(prefix) :], value) for name, value in state.items())
        around.append(prefix)
    return state, around


def _all_start(state: dict[Any, Any], prefix: str) -> bool:
    return all(isinstance(name, str) and name.startswith(prefix) for name in state)


def other_kind(path: Path) -> str | None:
    """What a path is, in words, where it is no checkpoint by its kind; None for what may be one."""
    if path.is_dir():
        return "a folder"
    ending = path.suffix.lower()
    if ending == ".npz" or _holds(path, ".npy"):
        return "a probe or an embedding file (.npz), not a model"
    named = {
        ".joblib": "a probe (.joblib), not a model",
        ".json": "a record or a config, not a model",
        ".onnx": "a program that export.py wrote (ONNX), which cannot be turned back into a model",
        ".pt2": "a program that export.py wrote (torch.export), which cannot be turned back into a model",
        ".safetensors": "weights without their config; give the folder that export.py wrote",
    }
    return named.get(ending)


def _holds(path: Path, ending: str) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(ending) for name in file.namelist())
    except (OSError, *DAMAGED):
        return False
