"""Some patches of a dataset as a dataset of their own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.simulator.truth import ground_truth
from studies.engine.context import StudyContext
from studies.engine.data import Fold, Source
from utils.data_config import BigEarthNetInfo
from utils.errors import DataError
from utils.files import write_text
from utils.randomness import derive_seed


def subset(context: StudyContext, source: Source, name: str, ids: Sequence[str]) -> Source:
    """A dataset whose splits "train" and "test" are both the given patches.

    Args:
        context: config, data and stages of this reproduction.
        source: the dataset that has them.
        name: of the subset, for folders.
        ids: as its split files name them.
    """

    def work(folder: Path) -> str:
        return write_text(folder / "patches.csv", "".join(f"{name}\n" for name in ids)).name

    stage = context.cache.stage(f"subset/{source.key}/{name}", {"ids": list(ids)}, work, quiet=True)
    file = str(stage.folder / stage.result)
    folds = (Fold("", {"train": file, "test": file}),)
    return Source(f"{source.key}/{name}", source.section, source.path, folds, source.model)


def some(ids: Sequence[str], most: int, seed: int) -> list[str]:
    """At most so many of the patches, drawn at random, in their order."""
    random = np.random.default_rng(derive_seed(seed, "some patches"))
    chosen: list[int] = np.sort(random.permutation(len(ids))[:most]).tolist()
    return [ids[index] for index in chosen]


def truth_folder(context: StudyContext, source: Source) -> Path | None:
    """The folder of the simulation that a dataset's patches come from; None where their ground truth is unknown."""
    section, dataset = source.section, source.dataset("test")
    if section.dataset != BigEarthNetInfo.NAME or dataset.crop != "center" or not dataset.simulated:
        return None
    key = source.key.partition("/")[0]
    simulated = context.cache.folder / "stages" / "simulate" / key / "dataset"
    folder = dataset.root if section.simulate is None else simulated
    try:
        ground_truth(folder, dataset.ids[:1])
    except DataError:
        return None
    return folder
