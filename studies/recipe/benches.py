"""The sets of patches that a representation is judged on, and representations as their folds need them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.recipe import RecipeConfig
from eval.probing.representation import Vectors
from models.config import ModelConfig
from studies.engine.context import StudyContext
from studies.engine.data import Source, read_source
from studies.engine.divisions import Fold
from studies.engine.runs import SplitRepresentation
from studies.engine.scoring import Representation
from studies.recipe.land_cover import land_cover_source
from utils.files import write_text

CHOICE, SIMULATED, REAL, LAND_COVER = "choice", "simulated", "real", "land_cover"
EVERYTHING = "all"
"""Name of the split with the patches of all folds: they are represented once, whatever the folds."""


class Bench(NamedTuple):
    """One set of patches."""

    name: str
    title: str
    source: Source
    metadata: bool
    """Whether the encoder is given metadata."""


def read_benches(context: StudyContext, config: RecipeConfig) -> dict[str, Bench]:
    """All benches of a config, by name: that of choices first."""
    found = {
        CHOICE: Bench(CHOICE, "simulated patches for choices", _source(CHOICE, config, context), True),
        SIMULATED: Bench(SIMULATED, "simulated patches", _source(SIMULATED, config, context), True),
    }
    if config.real is not None:
        found[REAL] = Bench(REAL, "real patches", _source(REAL, config, context), True)
    if config.land_cover is not None:
        model = ModelConfig.of_size(img_size=config.model.img_size)
        source = land_cover_source(config.land_cover, config.seed, model, context.cache)
        found[LAND_COVER] = Bench(LAND_COVER, "windows of a real scene", source, False)
    return found


def _source(key: str, config: RecipeConfig, context: StudyContext) -> Source:
    """A dataset with a split of all patches beside its folds; of given splits train and test alone.

    C is then chosen within train: what a simulator leaves for validation may be a single patch. Where poolings are
    chosen, it is chosen on test.
    """
    section = getattr(config, key)
    source = read_source(key, section, context.config, context.cache)
    if section.folds is None:
        splits = {name: source.folds[0].splits[name] for name in ("train", "test")}
        folds = [Fold("", {**splits, "val": splits["test"]} if key == CHOICE else splits)]
    else:
        everything = context.cache.folder / "splits" / key / "everything.csv"
        tested = [Path(fold.splits["test"]) for fold in source.folds]
        write_text(everything, "".join(file.read_text(encoding="utf-8") for file in tested))
        folds = [fold._replace(splits={**fold.splits, EVERYTHING: str(everything)}) for fold in source.folds]
    return Source(key, section, source.path, tuple(folds), source.model)


def by_folds(source: Source, representation: Representation) -> Representation:
    """A representation that is computed once for the patches of all folds.

    Args:
        source: the dataset.
        representation: gives its split `EVERYTHING`, where there are folds.
    """
    if len(source.folds) == 1:
        return representation
    whole = representation(EVERYTHING, 0)

    def of_fold(split: str, fold: int) -> SplitRepresentation:
        def read() -> Vectors:
            row_of = {name: row for row, name in enumerate(whole.vectors.ids)}
            wanted = source.dataset(split, fold=fold).ids
            return whole.vectors.rows(np.array([row_of[name] for name in wanted if name in row_of]))

        return SplitRepresentation(read, f"{whole.digest}/{source.digest(split, fold=fold)}")

    return of_fold
