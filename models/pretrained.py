"""Trained weights: by a name of `models.named_weights`, a checkpoint file, a folder, or a model on the hub."""

import re
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.checkpoint import Checkpoint, as_asked, read_checkpoint
from models.moe_mae import MOEMAE, count_parameters
from models.named_weights import NamedWeights, default_name, named_weights
from models.weights_folder import (
    CONFIG_FILE,
    MADE_FROM,
    WEIGHTS_FILE,
    is_weights_folder,
    read_about,
    read_weights_folder,
)
from utils.errors import CheckpointError, ConfigError
from utils.files import sha256
from utils.project_files import find_shipped

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CHECKPOINT_ENDING = ".pth"
NO_OWNERS = ("weights", "outputs")
"""First parts of a path that are folders of every run here, and never the owner of a model on the hub."""
BEST_FILES = "pretrained_*_best.pth"
"""What a training run calls its best weights: of several checkpoints in a folder, the one that is meant."""


def load_pretrained(
    source: str | Path | None = None,
    *,
    file: str | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> MOEMAE:
    """See `MOEMAE.from_pretrained`, whose work this is."""
    return load_with_path(source, file=file, revision=revision, device=device)[0]


def load_published(source: str | Path = "published", *, device: torch.device | str = "cpu") -> MOEMAE:
    """A checkpoint of the published code, with that code's behaviour; by default the authors' own.

    Args:
        source: as `MOEMAE.from_pretrained` takes it.
        device: where the model goes.

    Raises:
        CheckpointError: as `MOEMAE.from_pretrained`, and for weights that were not trained by the published code.
    """
    model = load_pretrained(source, device=device)
    if not model.config.published_behaviour:
        raise CheckpointError(f"{source}: was not trained as the published code trains; use MOEMAE.from_pretrained")
    return model


def load_with_path(
    source: str | Path | None = None,
    *,
    file: str | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> tuple[MOEMAE, Path]:
    """The same, and the file that holds the weights."""
    found = weights_path(source, file=file, revision=revision)
    return _on(as_asked(read_weights(found)).build(), device), found


def weights_path(source: str | Path | None = None, *, file: str | None = None, revision: str | None = None) -> Path:
    """The file that holds the weights of a name, as `MOEMAE.from_pretrained` takes it."""
    name = default_name() if source is None else str(source)
    if not name:
        raise CheckpointError("no weights are named; give a name, a checkpoint, a folder, or a model on the hub")
    path = find_shipped(name)
    if source is not None and path.is_dir():
        return _in_folder(path, file)
    if source is not None and path.exists():
        return path
    if named := named_weights().get(name):
        return _named(named, revision)
    if _is_path(name):
        raise CheckpointError(
            f"{source}: no such checkpoint: no such file or folder; give one ({CHECKPOINT_ENDING}), a folder "
            f"that export.py wrote, owner/name of a model on the Hugging Face hub, or one of {_names()}"
        )
    return _in_folder(fetch_from_hub(name, file, revision), file)


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path: it is then never looked for on the hub."""
    return (
        not HUB_ID.fullmatch(name)
        or name.endswith((CHECKPOINT_ENDING, ".safetensors"))
        or Path(name).parts[0] in NO_OWNERS
        or Path(name).parent.is_dir()
    )


def _names() -> str:
    return ", ".join(named_weights()) or "no names (this copy has no weights)"


def _named(named: NamedWeights, revision: str | None) -> Path:
    """The file of weights with a name: the project's, or the hub's, whose content is then compared with the table."""
    if named.hub is None:
        named.require_there()
        return named.file
    if named.file.is_file() and _is_as_listed(named, named.file):  # fetched by hand; a run of one's own may lie there
        return named.file
    path = _in_folder(fetch_from_hub(named.hub, None, revision), None)
    if not _is_as_listed(named, path):
        size, parameters = named.entry["size"], named.entry["parameters"]
        raise CheckpointError(
            f"{path}: is not the {named.name} checkpoint (size {size}, {parameters:,} parameters, published layout); "
            "give its path if these weights are meant"
        )
    return path


def _is_as_listed(named: NamedWeights, path: Path) -> bool:
    """Whether a file, every entry of which is checked, is what the table says of weights without a known hash."""
    checkpoint = read_checkpoint(path)
    found = (checkpoint.published, checkpoint.config.size, count_parameters(checkpoint.build()))
    return found == (True, named.entry["size"], named.entry["parameters"])


def made_from(weights: Path) -> set[str]:
    """SHA-256 of a file of weights, and of the checkpoint that an export was made from."""
    made = {}
    if weights.name == WEIGHTS_FILE and is_weights_folder(weights.parent):
        made = read_about(weights.parent).get(MADE_FROM) or {}
    return {sha256(weights), *(value for value in [made.get("sha256")] if value)}


def _on(model: MOEMAE, device: torch.device | str) -> MOEMAE:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device here, or built without it
        reason = str(error).splitlines()[0][:160]
        raise ConfigError(f"device: {str(device)!r} cannot be used ({reason}); use cpu") from error


def read_weights(path: Path) -> Checkpoint:
    """What a file that `weights_path` found holds.

    Raises:
        CheckpointError: saying what it is, where it holds no weights of this model.
    """
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    if path.name != WEIGHTS_FILE or not is_weights_folder(path.parent):
        raise CheckpointError(f"{path}: needs its {CONFIG_FILE} beside it; give the folder that export.py wrote")
    return read_weights_folder(path.parent)


def _in_folder(folder: Path, file: str | None) -> Path:
    """The file of a folder that holds the weights."""
    if file is not None:
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder}: has no file {file}; check the name")
        return folder / file
    return folder / WEIGHTS_FILE if is_weights_folder(folder) else _only_checkpoint(folder)


def _only_checkpoint(folder: Path) -> Path:
    """The checkpoint of a folder: its only one, or the only best one of a training run."""
    for pattern in (f"*{CHECKPOINT_ENDING}", f"**/{BEST_FILES}", f"**/*{CHECKPOINT_ENDING}"):
        found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
        if len(found) == 1:
            return found[0]
    if not found:
        raise CheckpointError(
            f"{folder}: holds neither {WEIGHTS_FILE} with its {CONFIG_FILE} nor a {CHECKPOINT_ENDING}; check the name"
        )
    names = ", ".join(str(path.relative_to(folder)) for path in found[:4])
    raise CheckpointError(f"{folder}: holds {len(found)} checkpoints ({names}, …); say which: file=…")


def fetch_from_hub(repository: str, file: str | None, revision: str | None) -> Path:
    """Fetch a model's weights from the Hugging Face hub, or find them in its cache; returns the folder.

    Raises:
        ConfigError: where the package huggingface_hub is missing.
        CheckpointError: one line, when the model is not there or not in reach.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{repository}: no such file or folder, and to look for it on the Hugging Face hub the package "
            "huggingface_hub is needed (pip install huggingface_hub)"
        ) from None
    wanted = [WEIGHTS_FILE, CONFIG_FILE, f"*{CHECKPOINT_ENDING}"] if file is None else [file, CONFIG_FILE]
    try:
        # Its stubs want tqdm's asynchronous bar; it calls what every bar has.
        found = huggingface_hub.snapshot_download(  # pyright: ignore[reportCallIssue]
            repository,
            revision=revision,
            allow_patterns=wanted,
            tqdm_class=_TerminalBar,  # pyright: ignore[reportArgumentType]
        )
    except Exception as error:  # among them those of whichever HTTP library it uses
        raise CheckpointError(f"{repository}: {_hub_problem(error)}") from error
    return Path(found)


class _TerminalBar(tqdm):
    """A progress bar that is quiet off a terminal, for the hub's client."""

    def __init__(self, *arguments: Any, name: str = "", **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": None, "leave": False})


def _hub_problem(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RevisionNotFoundError" in kinds:
        return "the Hugging Face hub has no such revision of it; check revision=…"
    if "RepositoryNotFoundError" in kinds:
        return "neither a file here nor a model on the Hugging Face hub that you may read; check the name or log in"
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return "no such file here, and the Hugging Face hub is out of reach; connect, or fetch the weights by hand"
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"cannot be fetched from the Hugging Face hub ({type(error).__name__}: {first_line[:160]})"
