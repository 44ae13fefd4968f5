"""The table of weights with a name: the entries of `weights/manifest.json` that have one."""

from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import CheckpointError
from utils.parsing import parse_json
from utils.project_files import PROJECT

WEIGHTS = PROJECT / "weights"
MANIFEST = WEIGHTS / "manifest.json"


class NamedWeights(NamedTuple):
    """Weights that `MOEMAE.from_pretrained` finds by a name."""

    name: str
    file: Path
    """Where they are, or where they go when they are fetched by hand."""
    hub: str | None
    """The model on the Hugging Face hub that has them, where they do not come with the project."""
    default: bool
    """Whether they are meant where no name is given."""
    entry: dict[str, Any]
    """Everything else in the manifest."""

    def require_there(self) -> None:
        """Raise CheckpointError where the file is missing; whoever reads it compares it with the manifest."""
        if not self.file.is_file():
            raise CheckpointError(f"{self.name}: {self.file} is missing; fetch the project's folder weights again")


def named_weights() -> dict[str, NamedWeights]:
    """All of them by name; none where the manifest is missing.

    Raises:
        CheckpointError: naming the manifest, when it is damaged.
    """
    try:
        entries = parse_json(MANIFEST.read_text(encoding="utf-8"))
        rows = [
            NamedWeights(entry["name"], WEIGHTS / file, entry.get("hub"), entry.get("default", False), entry)
            for file, entry in entries.items()
            if "name" in entry
        ]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{MANIFEST}: cannot be read ({error}); fetch it again") from error
    return {row.name: row for row in rows}


def default_name() -> str:
    """The name that stands for the shipped weights. Raises CheckpointError where none come with this copy."""
    for name, row in named_weights().items():
        if row.default:
            return name
    raise CheckpointError(f"{MANIFEST}: names no default weights; give a checkpoint, a folder or owner/name on the hub")


def listing() -> list[str]:
    """Lines that say which weights have a name: what they are, and whether they are here."""
    lines = []
    for name, row in named_weights().items():
        state = "here" if row.file.is_file() else "missing" if row.hub is None else f"on the hub: {row.hub}"
        about = f"size {row.entry['size']}, {row.entry['parameters']:,} parameters, {state}"
        lines += [f"{name}{' (default)' if row.default else ''}: {about}", f"  trained on {row.entry['trained_on']}"]
    return lines or [f"no weights have a name here: {MANIFEST} is missing"]
