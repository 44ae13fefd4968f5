"""The provenance of a checkpoint: the manifest's entry, its own training record, scores that name its hash.

Nothing is added to what these say, and what none of them says is listed as not recorded.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from models.checkpoint import EXTRA_KEY, Checkpoint
from models.config import to_record
from utils.errors import DataError
from utils.files import sha256
from utils.recorded import MANIFEST, entry_in_manifest

PROBE_SCORES = ("map_micro", "map_macro", "f1_micro", "f1_macro", "exact_match", "accuracy")


class Score(NamedTuple):
    """One measured number."""

    on: str
    """Of which patches."""
    name: str
    value: float
    source: str
    """Which file says so."""


class Record(NamedTuple):
    """What is known about a checkpoint."""

    file: str
    sha256: str
    published: bool
    trained_on: str | None
    source: str | None
    """Where the checkpoint itself comes from, if from elsewhere."""
    training: dict[str, Any]
    """Settings by name; empty where none are recorded."""
    commands: tuple[str, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...]


def collect_record(checkpoint: Checkpoint, score_files: list[Path]) -> Record:
    """Everything on record.

    Args:
        checkpoint: as read.
        score_files: JSON files that `eval_mae.py` and `train_logistic_regression.py` wrote.

    Raises:
        DataError: naming a score file that cannot be read or is of other weights.
    """
    digest = sha256(checkpoint.path)
    entry, note = find_entry(checkpoint.path, digest)
    training, commands = _training(checkpoint)
    scores = [*_manifest_scores(entry), *(score for path in score_files for score in read_scores(path, digest))]
    return Record(
        file=checkpoint.path.name,
        sha256=digest,
        published=checkpoint.published,
        trained_on=entry.get("trained_on"),
        source=entry.get("source"),
        training=training,
        commands=tuple(entry.get("commands", commands)),
        scores=tuple(scores),
        notes=(note,) if note else (),
    )


def find_entry(path: Path, digest: str) -> tuple[dict[str, Any], str | None]:
    """A checkpoint's entry in a `manifest.json` above it, and what to say about how it was found.

    The hash decides. An entry without one, of a file whose hash is not published, is found by its name.
    """
    path = path.resolve()
    for folder in path.parents[:2]:
        entry, others = entry_in_manifest(folder, path)
        for other in (entry, *others):
            if other.get("sha256") == digest:
                return other, None
        if entry and entry.get("sha256") is None:
            return entry, f"found in {MANIFEST} by its name, since no checksum of it is published"
    return {}, None


def _training(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """Settings and command of the training: from the checkpoint, else from the record of the run it lies in."""
    extra = checkpoint.content.get(EXTRA_KEY) or {}
    found: dict[str, Any] = {}
    commands: list[str] = []
    recipe = (extra.get("run") or {}).get("recipe")
    run = checkpoint.path.with_name(f"manifest_{checkpoint.config.size}.json")
    if recipe is None and run.is_file():
        try:
            content = json.loads(run.read_text(encoding="utf-8"))
            model, known = content["recipe"]["model"], to_record(checkpoint.config, checkpoint.masking)
            if all(known.get(key) == value for key, value in model.items()):
                recipe = content["recipe"]
                found["patches"] = content.get("patches")
                command = str(content["command"])
                commands = [command if command.startswith("moemae ") else f"python {command}"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            recipe = None
    if recipe:
        found |= {**recipe.get("training", {}), **{f"data.{key}": value for key, value in recipe["data"].items()}}
    if isinstance(epoch := checkpoint.content.get("epoch"), int):
        found["finished epochs"] = epoch + 1
    if isinstance(loss := checkpoint.content.get("best_train_loss"), float):
        found["best training loss"] = round(loss, 3)
    return {key: value for key, value in found.items() if value is not None}, commands


def _manifest_scores(entry: dict[str, Any]) -> list[Score]:
    found = []
    for split, scores in entry.get("scores", {}).items():
        on = f"{split}, {scores['patches']:,} patches" if "patches" in scores else split
        found += _numbers(scores, on, MANIFEST)
    return found


def _numbers(scores: dict[str, Any], on: str, source: str) -> list[Score]:
    found = [Score(on, name, value, source) for name, value in scores.items() if isinstance(value, float)]
    for name, value in scores.get("baselines", {}).items():
        loss = value["masked_loss"] if isinstance(value, dict) else value
        found.append(Score(on, f"masked_loss of the baseline {name}", loss, source))
    return found


def read_scores(path: Path, digest: str) -> list[Score]:
    """The scores in a JSON of `eval_mae.py` or `train_logistic_regression.py`.

    Raises:
        DataError: when it is neither, or of other weights than `digest`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "masked_loss" in content:
            _require_same(path, content["checkpoint"]["sha256"], digest)
            kind = "simulated " if content["simulated"] else ""
            on = f"{content['patches']:,} {kind}patches of {content['dataset']}"
            wanted = {name: content[name] for name in ("masked_loss", "full_loss", "baselines") if name in content}
            return _numbers(wanted, on, path.name)
        found = []
        for split, scores in content["metrics"].items():
            about = content["embeddings"][split]
            _require_same(path, about["checkpoint"]["sha256"], digest)
            kind = "simulated " if about["simulated"] else ""
            patches = f"{scores['samples']:,} {kind}patches of {about['dataset']}"
            on = f"linear probe (pool {about['pool']}), {split}: {patches}"
            found += [Score(on, name, scores[name], path.name) for name in PROBE_SCORES if scores.get(name) is not None]
        return found
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: holds no scores with the SHA-256 of their weights; give a JSON of eval_mae.py or "
            "train_logistic_regression.py"
        ) from error


def _require_same(path: Path, found: str, digest: str) -> None:
    if found != digest:
        raise DataError(f"{path}: was measured with other weights (sha256 {found[:12]}…, not {digest[:12]}…)")
