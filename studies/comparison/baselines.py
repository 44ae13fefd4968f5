"""Representations of patches without pretraining: the baselines of every table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.probing.feature_baselines import COMBINATIONS, METADATA, RANDOM, RANDOM_WHITE, combined, feature_baselines
from eval.probing.pca_features import fit_pca, pca_vectors
from eval.probing.random_features import fit_random_features, random_vectors
from eval.probing.representation import Vectors
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.runs import SplitRepresentation
from studies.engine.scoring import Representation
from studies.engine.stages import Stage
from transformation.random_features import RandomFeatures
from utils.files import write_npz

PCA = "PCA of patches"
SPLITS = ("train", "val", "test")

STRONGEST = "random features + statistics + metadata"
"""What an encoder has to be worth more than, where there are metadata."""

REPORTED = (RANDOM, STRONGEST, f"{STRONGEST} + products")
"""Of the combinations those that every report shows."""


def baseline_names(
    context: StudyContext, source: Source, width: int, combinations: Sequence[str] = REPORTED
) -> dict[str, str]:
    """Names of a dataset's baselines, in the order of a table, to their names as folders.

    Args:
        context: config, data and stages of this reproduction.
        source: the dataset; without metadata it has fewer.
        width: features of the encoder's embeddings, and of the principal components.
        combinations: which keys of `COMBINATIONS`.
    """
    found = _features(context, source, "test", 0)
    names = [name for name in found if name not in ("y", "ids")]
    names += [name for name in combinations if METADATA in found or METADATA not in COMBINATIONS[name]]
    folders = {name: name.replace(" + ", "_and_").replace(" ", "_") for name in names}
    return {**folders, PCA: f"pca{width}"}


def baseline(context: StudyContext, source: Source, name: str, width: int) -> Representation:
    """One of `baseline_names` as a representation."""

    def representation(split: str, fold: int) -> SplitRepresentation:
        if name == PCA:
            return _components(context, source, split, fold, width)
        if name in COMBINATIONS:
            return _combination(context, source, split, fold, name)

        def read() -> Vectors:
            return _vectors(_features(context, source, split, fold), name)

        return SplitRepresentation(read, f"{source.digest(split, fold=fold)}/{name}")

    return representation


def _vectors(arrays: Mapping[str, np.ndarray], name: str) -> Vectors:
    return Vectors(arrays[name], arrays["y"], [str(patch_id) for patch_id in arrays["ids"]])


def _features(context: StudyContext, source: Source, split: str, fold: int) -> dict[str, np.ndarray]:
    """What `feature_baselines` finds in a split: name to (N, D), and `y` and `ids`."""

    def work(folder: Path) -> None:
        found = feature_baselines(source.loader(split, context.runs.device, fold=fold))
        write_npz(folder / "features.npz", {**found.x, "y": found.y, "ids": np.array(found.ids)})

    place = f"baselines/{source.key}/{source.folds[fold].name or 'all'}/{split}"
    stage = context.cache.stage(place, {"data": source.digest(split, fold=fold)}, work, quiet=True)
    with np.load(stage.folder / "features.npz") as arrays:
        return dict(arrays)


def _combination(context: StudyContext, source: Source, split: str, fold: int, name: str) -> SplitRepresentation:
    """Random features of a split, alone or beside its statistics and metadata."""
    random = [part for part in COMBINATIONS[name] if part in (RANDOM, RANDOM_WHITE)]
    stages = {part: _random_features(context, source, split, fold, part == RANDOM_WHITE) for part in random}
    digests = "/".join([source.digest(split, fold=fold), *(stage.digest for stage in stages.values())])

    def read() -> Vectors:
        features = _features(context, source, split, fold)
        parts = dict(features)
        for part, stage in stages.items():
            with np.load(stage.folder / "features.npz") as arrays:
                parts[part] = arrays["x"]
        return Vectors(combined(parts, name), features["y"], [str(patch_id) for patch_id in features["ids"]])

    return SplitRepresentation(read, f"{digests}/{name}")


def _random_features(context: StudyContext, source: Source, split: str, fold: int, whiten_pixels: bool) -> Stage:
    """Random features of a split, with filters from the patches that encoders are pretrained on."""
    pretraining, seed = context.data.main, context.config.seed
    drawn_in = fold if source is pretraining else 0
    kind = "whitened_pixels" if whiten_pixels else "plain"

    def draw(folder: Path) -> None:
        loader = pretraining.loader("train", context.runs.device, fold=drawn_in, labels=False)
        drawn = fit_random_features(loader, seed, whiten_pixels)
        write_npz(folder / "filters.npz", {"filters": drawn.weight.numpy(), "offsets": drawn.bias.numpy()})

    inputs = {"seed": seed, "data": pretraining.digest("train", fold=drawn_in, labels=False)}
    place = f"random_filters/{kind}/{pretraining.folds[drawn_in].name or 'all'}"
    filters = context.cache.stage(place, inputs, draw, quiet=True)

    def work(folder: Path) -> None:
        with np.load(filters.folder / "filters.npz") as arrays:
            features = RandomFeatures.of(arrays["filters"], arrays["offsets"])
        x, _ = random_vectors(features, source.loader(split, context.runs.device, fold=fold))
        write_npz(folder / "features.npz", {"x": x})

    place = f"random_features/{kind}/{source.key}/{source.folds[fold].name or 'all'}/{split}"
    inputs = {"filters": filters.digest, "data": source.digest(split, fold=fold)}
    return context.cache.stage(place, inputs, work, quiet=True)


def _components(context: StudyContext, source: Source, split: str, fold: int, width: int) -> SplitRepresentation:
    """Principal components of a split's pixels, found on the train split."""
    splits = [name for name in SPLITS if source.split_file(name, fold)]

    def work(folder: Path) -> int:
        pca = fit_pca(source.loader("train", context.runs.device, fold=fold), width)
        for name in splits:
            loader = source.loader(name, context.runs.device, fold=fold)
            found = pca_vectors(pca, loader)
            row_of = {patch_id: row for row, patch_id in enumerate(loader.dataset.ids)}
            labels = source.labels(name, fold)[[row_of[patch_id] for patch_id in found.ids]]
            write_npz(folder / f"{name}.npz", {"x": found.x, "y": labels, "ids": np.array(found.ids)})
        return pca.n_components_

    inputs = {"width": width, "data": {name: source.digest(name, fold=fold) for name in splits}}
    place = f"baselines/{source.key}/{source.folds[fold].name or 'all'}/pca{width}"
    stage = context.cache.stage(place, inputs, work, quiet=True)

    def read() -> Vectors:
        with np.load(stage.folder / f"{split}.npz") as arrays:
            return _vectors(arrays, "x")

    return SplitRepresentation(read, f"{stage.digest}/{split}")
