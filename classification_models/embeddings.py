"""Read and check an embedding file, and choose the features and labels that a probe is fitted on.

A file `<name>_<split>.npz` holds `x_<split>` (N, D), `y_<split>` and, but for the published ones, `ids` (N,);
`<name>_<split>.json` beside it says where they come from. A file with all 105 tokens of BigEarthNet-Landsat's
train split is 16 GB, so uncompressed features are memory-mapped and visited in chunks of rows.

No file is used that has not been compared with its checksums: features by blocks of rows while they are visited, where
the JSON has such, else with the archive's; everything else with the archive's.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classification_models.checked_arrays import (
    REMAKE,
    ArrayCheck,
    compared_chunks,
    open_array,
    read_array,
    require_whole,
)
from utils.checked_json import FIX, is_changed
from utils.errors import DataError
from utils.parsing import damage_as_value_error, parse_json
from utils.row_checksums import RowChecksums, checksums_from, row_slices

PUBLISHED_TOKENS = (105, 144)
"""Tokens and width of the published `all` embeddings, which have no JSON beside them (size S: 15,120 numbers)."""

CHUNK_BYTES = 32 * 2**20
"""Features visited at a time."""

X_CHECKSUMS = "x_checksums"
"""Of the features, in the JSON beside an embedding file: `utils.row_checksums.RowChecksums`."""


class Embeddings(NamedTuple):
    """One embedding file as it is on disk."""

    path: Path
    x: np.ndarray  # (N, D) or (N, tokens, width), real numbers; memory-mapped where the file allows it
    y: np.ndarray  # (N,) class index, or (N, L) zeros and ones
    ids: np.ndarray | None  # (N,) text; None in published files
    provenance: dict[str, Any]  # the JSON beside it, empty where there is none
    check: ArrayCheck


class Labels(NamedTuple):
    """Labels in the form a probe takes."""

    y: np.ndarray  # (N,) int64 class index, or (N, L) int8 multi-hot
    multilabel: bool


def read_embeddings(path: str | Path) -> Embeddings:
    """Open an embedding file and check all but the values of `x`.

    Raises:
        DataError: naming the file, when it is missing, no `.npz`, truncated, lacks a key, holds objects, is empty,
            or its arrays differ in their number of rows.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; {REMAKE}")
    provenance = _read_provenance(path)
    try:
        with damage_as_value_error(), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            keys = _only_key(path, names, "x_"), _only_key(path, names, "y_"), "ids"
            x, check = open_array(path, archive, keys[0])
            y = read_array(path, archive, keys[1])
            ids = read_array(path, archive, keys[2]) if keys[2] in names else None
            require_whole(archive, keys)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a readable .npz (truncated, damaged or another format); {REMAKE}") from error
    _check_shapes(path, x, y, ids)
    return Embeddings(path, x, y, ids, provenance, check._replace(blocks=_checksums(path, x, provenance)))


def _checksums(path: Path, x: np.ndarray, provenance: dict[str, Any]) -> RowChecksums | None:
    """Those of the JSON. Raises DataError where they are of another array than `x`."""
    record = provenance.get(X_CHECKSUMS)
    if record is None:
        return None
    try:
        found = checksums_from(record)
    except ValueError as error:
        raise DataError(f"{path.with_suffix('.json')}: `{X_CHECKSUMS}` holds {error}; {REMAKE}") from error
    if (found.dtype, found.shape) != (x.dtype.str, list(x.shape)):
        raise DataError(f"{path}: holds {x.dtype} {x.shape}, its JSON is of {found.dtype} {found.shape}; {REMAKE}")
    return found


def _only_key(path: Path, names: list[str], prefix: str) -> str:
    found = [name for name in names if name.startswith(prefix)]
    if len(found) != 1:
        have = ", ".join(names) or "nothing"
        raise DataError(f"{path}: expected exactly one array named {prefix}<split>, the file holds {have}; {REMAKE}")
    return found[0]


def _check_shapes(path: Path, x: np.ndarray, y: np.ndarray, ids: np.ndarray | None) -> None:
    if x.ndim not in (2, 3) or x.dtype.kind not in "fiu":
        raise DataError(f"{path}: x is {x.dtype} {x.shape}, expected real numbers (N, D) or (N, tokens, width)")
    if y.ndim not in (1, 2) or y.dtype.kind not in "fiub" or y.shape[1:] == (1,):
        raise DataError(f"{path}: y is {y.dtype} {y.shape}, expected (N,) class indices or (N, L >= 2) zeros and ones")
    if x.size == 0:
        raise DataError(f"{path}: x is {x.shape}: the file is empty; {REMAKE}")
    rows = {"x": len(x), "y": len(y)} | ({} if ids is None else {"ids": len(ids)})
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{key} {count}" for key, count in rows.items())
        raise DataError(f"{path}: the arrays differ in their number of rows ({counts}); {REMAKE}")


def _read_provenance(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        value = parse_json(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{beside}: not readable JSON; {REMAKE}, or remove it") from error
    if not isinstance(value, dict):
        raise DataError(f"{beside}: expected a JSON object that describes {path.name}; {REMAKE}, or remove it")
    if is_changed(value):
        raise DataError(f"{beside}: is not what was written there; {FIX}")
    return value


def row_chunks(x: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive rows that cover `x`, about `CHUNK_BYTES` each."""
    return row_slices(x, CHUNK_BYTES)


def select_features(embeddings: Embeddings, pool: bool = False, columns: slice | None = None) -> np.ndarray:
    """The features to fit on, checked to be finite.

    Args:
        embeddings: an opened file.
        pool: average the tokens of every patch.
        columns: keep these of the flattened features, for example `slice(576, 720)`, the CLS token of size S.

    Returns:
        (N, D'): a view of the file where nothing is pooled or left out, else an array in memory.

    Raises:
        DataError: when the number of tokens is unknown, the columns lie outside, the file differs from its checksums,
            or a value is not finite.
    """
    x = embeddings.x
    flat = x.reshape(len(x), -1)
    if pool:
        tokens, width = _token_shape(embeddings)
        selected = np.empty((len(x), width), np.float32)
    elif columns is not None:
        start, stop = columns.start or 0, flat.shape[1] if columns.stop is None else columns.stop
        if not 0 <= start < stop <= flat.shape[1]:
            raise DataError(f"{embeddings.path}: --feature-slice {start}:{stop} is outside its 0:{flat.shape[1]}")
        selected = np.empty((len(x), stop - start), x.dtype)
    else:
        selected = flat
    for rows in compared_chunks(embeddings.path, x, embeddings.check, CHUNK_BYTES):
        if pool:
            selected[rows] = flat[rows].reshape(-1, tokens, width).mean(axis=1, dtype=np.float64)
        elif columns is not None:
            selected[rows] = flat[rows, start:stop]
        finite = np.isfinite(selected[rows]).all(axis=1)
        if not finite.all():
            row = rows.start + int(np.argmin(finite))
            raise DataError(f"{embeddings.path}: x holds NaN or infinity (first in row {row}); {REMAKE}")
    return selected


def _token_shape(embeddings: Embeddings) -> tuple[int, int]:
    """Tokens and width of one patch's features: from the shape, the JSON, or the published layout."""
    path, shape, provenance = embeddings.path, embeddings.x.shape, embeddings.provenance
    pooling = provenance.get("pool")
    if pooling is not None and pooling != "all":
        raise DataError(f"{path}: already pooled ({pooling}); leave --pool out")
    if len(shape) == 3:
        return shape[1], shape[2]
    given = (provenance.get("tokens"), provenance.get("width"))
    tokens, width = PUBLISHED_TOKENS if given == (None, None) else given
    if not (isinstance(tokens, int) and isinstance(width, int) and tokens > 0 and tokens * width == shape[1]):
        source = "the published layout" if given == (None, None) else f"{path.with_suffix('.json').name}"
        raise DataError(
            f"{path}: {shape[1]} features are not the {tokens} x {width} tokens of {source}, so they cannot be "
            f"averaged; leave --pool out if they are pooled already"
        )
    return tokens, width


def resolve_labels(embeddings: Embeddings, multilabel: bool | None) -> Labels:
    """Decide between multilabel and multiclass, and bring the labels into that form.

    `y` (N,) is multiclass. `y` (N, L) is multilabel if `multilabel` says so; if it says no, every row must have
    exactly one label. Unsaid, `multilabel` in the JSON decides, and without that a matrix whose rows all have exactly
    one label is taken as one-hot multiclass, as the published EuroSAT files hold it.

    Raises:
        DataError: when the labels are not indices or zeros and ones, or contradict `multilabel`.
    """
    path, y = embeddings.path, embeddings.y
    if not np.isfinite(y).all():
        raise DataError(f"{path}: y holds NaN or infinity; {REMAKE}")
    if y.ndim == 1:
        if multilabel:
            raise DataError(f"{path}: --multilabel true, but y {y.shape} holds class indices; use --multilabel false")
        indices = y.astype(np.int64)
        if (indices != y).any() or (indices < 0).any():
            raise DataError(f"{path}: y must hold class indices 0, 1, 2, …, found {y.min()} to {y.max()}")
        return Labels(indices, False)
    if not np.isin(y, (0, 1)).all():
        raise DataError(f"{path}: y {y.shape} must hold only zeros and ones (one column per label)")
    per_row = y.sum(axis=1, dtype=np.int64)
    if multilabel is None:
        multilabel = embeddings.provenance.get("multilabel", bool((per_row != 1).any()))
    if multilabel:
        return Labels(y.astype(np.int8), True)
    if (per_row != 1).any():
        row = int(np.argmax(per_row != 1))
        raise DataError(
            f"{path}: multiclass labels are asked for (--multilabel false or a multiclass dataset), but row {row} of y "
            f"has {per_row[row]} labels; use --multilabel true"
        )
    return Labels(y.argmax(axis=1).astype(np.int64), False)


def check_same_source(train: Embeddings, other: Embeddings) -> None:
    """Refuse to score embeddings of another checkpoint, pooling or dataset than those fitted on.

    Raises:
        DataError: naming both files and what differs. What a file does not say is not compared.
    """
    for name in ("dataset", "pool", "checkpoint"):
        first, second = train.provenance.get(name), other.provenance.get(name)
        if name == "checkpoint":
            first, second = (value.get("sha256") if isinstance(value, dict) else None for value in (first, second))
        if first is not None and second is not None and first != second:
            raise DataError(f"{other.path}: made with another {name} than {train.path}; embed all splits alike")


def class_names(embeddings: Embeddings, count: int) -> list[str]:
    """Names of the classes from the JSON, else their indices as text.

    Args:
        embeddings: the file fitted on.
        count: number of label columns, or the highest class index + 1.

    Raises:
        DataError: when the JSON names fewer classes than the labels need, or names one twice.
    """
    names = embeddings.provenance.get("classes")
    if names is None:
        return [str(index) for index in range(count)]
    beside = embeddings.path.with_suffix(".json")
    if not isinstance(names, list):
        raise DataError(f"{beside}: `classes` must be a list of class names; {REMAKE}")
    multilabel_mismatch = embeddings.y.ndim == 2 and len(names) != embeddings.y.shape[1]
    if len(names) < count or multilabel_mismatch or len(set(names)) != len(names):
        raise DataError(f"{beside}: `classes` has {len(names)} names ({len(set(names))} different), y needs {count}")
    return [str(name) for name in names]
