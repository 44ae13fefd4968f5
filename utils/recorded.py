"""What is on record about the bytes of weights and probes: by a manifest, the JSON beside them, or the hub's cache."""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import CheckpointError
from utils.parsing import parse_json

MANIFEST = "manifest.json"
"""In the folder of a file or the one above: SHA-256 and origin of files by their paths."""


PROBE_SUFFIXES = (".joblib", ".npz")
"""Of the two forms of a probe."""


class Recorded(NamedTuple):
    """A hash that a file has to have."""

    sha256: str
    source: str
    """Who says so."""
    cure: str


def require_recorded(path: Path, data: bytes) -> None:
    """Compare a file's bytes with every hash that is on record for it.

    Raises:
        CheckpointError: naming the file and the record that it differs from.
    """
    ways = (_in_manifest, _beside, _beside_probe, _in_hub_cache)
    known = [found for way in ways if (found := way(path)) is not None]
    digest = hashlib.sha256(data).hexdigest() if known else ""
    for found in known:
        if found.sha256 != digest:
            raise CheckpointError(f"{path}: is not the file that {found.source} records (sha256); {found.cure}")


def entry_in_manifest(folder: Path, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A file's entry in a folder's manifest, and all entries of it; empty where there is none that can be read."""
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        name = path.relative_to(folder).as_posix()
        entries = [entry for entry in manifest.values() if isinstance(entry, dict)]
        entry = manifest.get(name)
    except (OSError, ValueError, AttributeError):
        return {}, []
    return entry if isinstance(entry, dict) else {}, entries


def _in_manifest(path: Path) -> Recorded | None:
    path = path.absolute()
    for folder in path.parents[:2]:
        digest = entry_in_manifest(folder, path)[0].get("sha256")
        if isinstance(digest, str):
            return Recorded(digest, str(folder / MANIFEST), "fetch it again, or correct its entry there")
    return None


def _beside(path: Path) -> Recorded | None:
    """By the `.json` that training writes beside a checkpoint."""
    record = path.with_suffix(".json")
    if not path.name.startswith("checkpoint_") or not record.is_file():
        return None
    cure = "give its best or last weights, or go on with --resume, which finds a whole one"
    try:
        digest = parse_json(record.read_text(encoding="utf-8"))["sha256"]
        return Recorded(str(digest), record.name, cure)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: has no readable {record.name} beside it; {cure}") from error


def _beside_probe(path: Path) -> Recorded | None:
    """By the `.json` of the probe run that made it; earlier ones say nothing of their files."""
    record = path.with_suffix(".json")
    if path.suffix not in PROBE_SUFFIXES or not record.is_file():
        return None
    try:
        digest = parse_json(record.read_text(encoding="utf-8"))["sha256"][path.suffix]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Recorded(str(digest), record.name, "restore it, take its other form, or fit the probe again")


def _in_hub_cache(path: Path) -> Recorded | None:
    """The Hugging Face hub's cache names files by the hash of their bytes, and links to them."""
    blob = path.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return None
    return Recorded(blob.name, "the Hugging Face hub", f"remove {blob} and fetch it again")
