"""Which patches a page shows, and everything but their pictures: positions, labels, dates, neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from classification_models.embeddings import (
    Embeddings,
    check_same_source,
    class_names,
    read_embeddings,
    resolve_labels,
    select_features,
)
from eval.probing.projection import Projection, nearest_neighbours, project
from utils.data_config import DATASETS, BigEarthNetInfo, EuroSATInfo
from utils.data_utils import parse_patch_id
from utils.errors import DataError

FEWEST = 8
"""Patches; fewer make no picture."""
NEIGHBOURS = 8
MOST_FEATURES = 4096
"""Embeddings with more numbers are all tokens of a patch, and are averaged over them."""
NO_DATE = -1
MOST_CLASSES = 500
"""That a page can list and colour."""


class PatchSource(NamedTuple):
    """Where patches can be read again."""

    dataset: str
    """A key of `DATASETS`."""
    ids: list[str]


class Points(NamedTuple):
    """N patches."""

    x: np.ndarray
    """(N, D) float32"""
    labels: np.ndarray
    """(N, L) bool"""
    classes: tuple[str, ...]
    """(L,)"""
    multilabel: bool
    ids: list[str] | None
    splits: np.ndarray
    """(N,) index into `split_names`"""
    split_names: tuple[str, ...]
    total: int
    """Patches in the files, of which N were drawn."""
    dataset: str | None
    """A key of `DATASETS`; None where nothing tells."""
    averaged: bool
    """Whether the files hold all tokens."""
    provenance: dict[str, Any]
    """Of the first file."""

    @property
    def simulated(self) -> bool:
        """Whether the files say that no satellite took these patches."""
        return bool(self.provenance.get("simulated"))

    @property
    def source(self) -> PatchSource | None:
        """The dataset and the ids in it; None where the files do not name both."""
        return None if self.dataset is None or self.ids is None else PatchSource(self.dataset, self.ids)

    @property
    def minutes(self) -> np.ndarray:
        """(N,) int32: minutes from 1970 to the Sentinel-2 acquisition that a patch is named after, or `NO_DATE`."""
        if self.ids is None or self.dataset != BigEarthNetInfo.NAME:
            return np.full(len(self.x), NO_DATE, np.int32)
        times = [np.datetime64(parse_patch_id(name).when, "m") for name in self.ids]
        return np.array(times).astype(np.int64).astype(np.int32)


def read_points(paths: Sequence[Path], most: int, seed: int) -> Points:
    """Read embedding files of one dataset.

    Args:
        paths: as `embed.compute_embed` writes them, or published ones.
        most: patches; of more, so many are drawn.
        seed: of the draw.

    Raises:
        DataError: naming a file that is no embedding file, or is of another dataset, checkpoint or width.
    """
    files = [read_embeddings(path) for path in paths]
    for file in files:
        _check_record(file)
    for other in files[1:]:
        check_same_source(files[0], other)
    total = sum(len(file.x) for file in files)
    if total < FEWEST:
        raise DataError(f"{paths[0]}: {total} patches make no picture; give at least {FEWEST}")
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    labels = [resolve_labels(file, None) for file in files]
    classes, multilabel = _classes(files, labels), labels[0].multilabel
    ids = _ids(files)
    names = tuple(dict.fromkeys(_split_name(file) for file in files))
    split_of = np.concatenate([np.full(len(file.x), names.index(_split_name(file))) for file in files])
    one_hot = [part.y > 0 if part.multilabel else part.y[:, None] == np.arange(len(classes)) for part in labels]
    return Points(
        x=_features(files, chosen),
        labels=np.concatenate(one_hot)[chosen],
        classes=classes,
        multilabel=multilabel,
        ids=None if ids is None else [ids[row] for row in chosen],
        splits=split_of[chosen].astype(np.uint8),
        split_names=names,
        total=total,
        dataset=_dataset(files[0], ids),
        averaged=_has_tokens(files[0]),
        provenance=files[0].provenance,
    )


def projections(points: Points, method: Literal["pca", "tsne"], seed: int) -> list[Projection]:
    """Principal components, and after them t-SNE where it is asked for."""
    methods: tuple[Literal["pca", "tsne"], ...] = ("tsne", "pca") if method == "tsne" else ("pca",)
    return [project(points.x, name, seed) for name in methods]


def neighbours(points: Points) -> np.ndarray:
    """(N, k) rows of the nearest neighbours in embedding space, nearest first, without the patch itself."""
    k = min(NEIGHBOURS, len(points.x) - 1)
    found = nearest_neighbours(points.x, points.x, k + 1)
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # among exact copies a patch may not be its own nearest
    return found[~own].reshape(len(found), k)


def _features(files: list[Embeddings], chosen: np.ndarray) -> np.ndarray:
    """(N, D) of the chosen rows."""
    parts, start = [], 0
    for file in files:
        x = select_features(file, pool=_has_tokens(file))
        rows = chosen[(chosen >= start) & (chosen < start + len(x))] - start
        parts.append(np.asarray(x[rows], dtype=np.float32))
        start += len(x)
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise DataError(f"{files[0].path}: the files have {sorted(widths)} numbers a patch; embed all splits alike")
    if min(widths) < 2:
        raise DataError(f"{files[0].path}: has one number a patch; a plane needs two")
    x = np.concatenate(parts)
    if (x == x[0]).all():
        raise DataError(f"{files[0].path}: all patches drawn have the same numbers, which make no picture; embed again")
    return x


def _check_record(file: Embeddings) -> None:
    """Refuse a JSON whose entries are of other kinds than `embed.compute_embed` writes."""
    record = file.provenance
    config, checkpoint = record.get("config") or {}, record.get("checkpoint") or {}
    parts = {"config": config, "checkpoint": checkpoint}
    if isinstance(config, dict):
        parts |= {f"config.{name}": config.get(name) or {} for name in ("data", "model")}
    texts = {"dataset": record.get("dataset"), "pool": record.get("pool")}
    if isinstance(checkpoint, dict):
        texts |= {f"checkpoint.{name}": checkpoint.get(name) for name in ("path", "sha256")}
    wrong = [name for name, value in parts.items() if not isinstance(value, dict)]
    wrong += [name for name, value in texts.items() if not isinstance(value, str | None)]
    if wrong:
        raise DataError(f"{file.path.with_suffix('.json')}: `{wrong[0]}` is of another kind than it should be; correct "
                        "or remove the file")  # fmt: skip


def _has_tokens(file: Embeddings) -> bool:
    return file.x.ndim == 3 or file.provenance.get("pool") == "all" or file.x.shape[1] > MOST_FEATURES


def _classes(files: list[Embeddings], labels: Sequence[Any]) -> tuple[str, ...]:
    """Class names of all files: from their records, by the number of labels, or their indices."""
    if len({part.multilabel for part in labels}) > 1:
        raise DataError(f"{files[-1].path}: has labels of another kind than {files[0].path}; embed all splits alike")
    counts = [part.y.shape[1] if part.multilabel else int(part.y.max()) + 1 for part in labels]
    if labels[0].multilabel and len(set(counts)) > 1:
        raise DataError(f"{files[0].path}: the files have {sorted(set(counts))} labels; embed all splits alike")
    count = max(counts)
    if count > MOST_CLASSES:
        raise DataError(f"{files[0].path}: has {count:,} classes, a page shows {MOST_CLASSES}; check what y holds")
    known = {(True, len(BigEarthNetInfo.CLASSES)): BigEarthNetInfo, (False, len(EuroSATInfo.CLASSES)): EuroSATInfo}
    info = known.get((labels[0].multilabel, count))
    if files[0].provenance.get("classes") is None and info is not None:  # a published file
        return info.CLASSES
    return tuple(class_names(files[0], count))


def _ids(files: list[Embeddings]) -> list[str] | None:
    known = [file.ids for file in files if file.ids is not None]
    if len(known) < len(files):
        return None
    return [str(name) for ids in known for name in ids]


def _split_name(file: Embeddings) -> str:
    return str(file.provenance.get("split", file.path.stem))


def _dataset(file: Embeddings, ids: list[str] | None) -> str | None:
    """From the record, else from how the first id looks."""
    named = file.provenance.get("dataset")
    if named in DATASETS or ids is None:
        return named if named in DATASETS else None
    if ids[0].rpartition("_")[0] in EuroSATInfo.CLASSES:
        return EuroSATInfo.NAME
    try:
        parse_patch_id(ids[0])
    except DataError:
        return None
    return BigEarthNetInfo.NAME
