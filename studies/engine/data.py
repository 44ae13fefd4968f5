"""The datasets of a reproduction: given or simulated, packed or not, split as published, by area, or into folds."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from configs.build import build_configured_dataset
from configs.reproduction import ALL_SPLIT, ReproductionConfig, SimulateSection, SourceSection
from configs.schema import Config
from datasets import simulated
from datasets.labelled_folder import NAME as LABELLED_FOLDER
from datasets.labelled_folder import LabelledFolderDataset
from datasets.loader import BatchLoader
from datasets.pack.dataset import make_recipe
from datasets.pack.format import is_pack
from datasets.pack.source import PackSource
from datasets.pack.writer import write_pack
from datasets.patches import PatchDataset, find_split
from datasets.simulator.constants import STANDARD
from datasets.simulator.patch_writer import SPLITS
from eval.statistics.spatial_blocks import neighbour_blocks
from models.config import ModelConfig
from studies.engine.divisions import Fold, divided
from studies.engine.stages import StageCache
from utils.data_config import DATASETS, IMAGE_SIZE
from utils.errors import ConfigError

DATASET_TITLES = {name: info.TITLE for name, info in DATASETS.items()} | {LABELLED_FOLDER: "labelled images"}
"""Name of a dataset in a config to its name in a report."""


class Source:
    """One dataset and its divisions.

    Attributes:
        key: the config's section: "data", "eurosat", "other" or "study".
        section: that section.
        path: the folder or pack that holds the patches.
        folds: at least one; every patch is tested once over all of them.
        model: decides how patches are read, where no other model is given.
        multilabel: whether labels are multi-hot.
        classes: class names in label order.
    """

    def __init__(
        self, key: str, section: SourceSection, path: str, folds: tuple[Fold, ...], model: ModelConfig
    ) -> None:
        self.key, self.section, self.path, self.folds = key, section, path, folds
        self.model, self._config = model, Config(data=section)
        self._places: dict[str, np.ndarray] | None = None
        self._datasets: dict[tuple[Any, ...], PatchDataset] = {}
        self._digests: dict[tuple[int, bool], str] = {}
        any_split = self.dataset("test")
        self.multilabel, self.classes, self.simulated = any_split.multilabel, any_split.classes, any_split.simulated

    @property
    def name(self) -> str:
        """The dataset's name in a report."""
        return DATASET_TITLES[self.section.dataset]

    def split_file(self, split: str, fold: int = 0) -> str | None:
        """The file of a split; None where there is none (there may be no "val")."""
        return self.folds[fold].splits.get(split)

    def dataset(self, split: str, model: ModelConfig | None = None, fold: int = 0, labels: bool = True) -> PatchDataset:
        """A split as a model takes it, held in memory where it is not too large; the same object at every call.

        Args:
            split: a split of the fold.
            model: decides the size of the patches, and what is published behaviour; None is the config's model.
            fold: index in `folds`.
            labels: False also gives the patches that have no label file.
        """
        model = model or self.model
        key = (split, fold, labels, model.img_size, model.published_behaviour, model.meta_fields)
        if key not in self._datasets:
            asked = self.section.missing_labels if labels else "none"
            file = self.folds[fold].splits[split]
            self._datasets[key] = build_configured_dataset(self._config, model, self.path, file, labels=asked)
            self._datasets[key].hold_in_memory()
        return self._datasets[key]

    def loader(
        self,
        split: str,
        device: torch.device,
        model: ModelConfig | None = None,
        fold: int = 0,
        labels: bool = True,
    ) -> BatchLoader:
        """Batches of `dataset`, on a device."""
        section, dataset = self.section, self.dataset(split, model, fold, labels)
        return BatchLoader(dataset, section.batch_size, section.num_workers, device, section.resident)

    def digest(self, split: str, model: ModelConfig | None = None, fold: int = 0, labels: bool = True) -> str:
        """Hex SHA-256 of a split as a model takes it: an input of every stage that looks at it.

        Pixels, ids, the statistics that normalise them, and labels; the arguments are those of `dataset`.
        """
        dataset = self.dataset(split, model, fold, labels)
        key = id(dataset), labels  # `_datasets` keeps the object, so that no other one gets its number
        if key not in self._digests:
            digest = hashlib.sha256(dataset.fingerprint().encode())
            digest.update(np.array([dataset.statistics.mean, dataset.statistics.std], np.float64).tobytes())
            if labels:
                digest.update(labels_of(dataset).tobytes())
            self._digests[key] = digest.hexdigest()
        return self._digests[key]

    @property
    def has_metadata(self) -> bool:
        """Whether the patches have metadata."""
        return self.dataset("test").gather(range(1)).columns is not None

    def labels(self, split: str, fold: int = 0) -> np.ndarray:
        """(N,) class indices or (N, L) multi-hot of a split's labelled patches."""
        return labels_of(self.dataset(split, fold=fold))

    def count(self, split: str) -> int:
        """Labelled patches of a split, of all folds together."""
        return sum(len(self.dataset(split, fold=fold)) for fold in range(len(self.folds)))

    def blocks(self, ids: Sequence[str]) -> np.ndarray:
        """The bootstrap's blocks of neighbouring patches, (N,), by the places of the test patches where known.

        Args:
            ids: of N test patches, of any fold.
        """
        if self._places is None:
            self._places = {}
            for fold in range(len(self.folds)):
                dataset = self.dataset("test", fold=fold, labels=False)
                self._places |= dict(zip(dataset.ids, dataset.places(), strict=True))
        unknown = np.full(2, np.nan)
        return neighbour_blocks(ids, np.array([self._places.get(name, unknown) for name in ids]).reshape(-1, 2))

    def patches(self) -> str:
        """What the patches are, in plain words: "simulated BigEarthNet-Landsat patches"."""
        if self.section.dataset == LABELLED_FOLDER:
            return f"{self.name} in {Path(self.path).name}"
        return f"{'simulated' if self.simulated else 'real'} {self.name} patches"

    def remarks(self) -> list[str]:
        """Remarks for a report on how the patches become the model's input."""
        dataset = self.dataset("test")
        return [dataset.remarks()] if isinstance(dataset, LabelledFolderDataset) else []

    def measured_on(self) -> str:
        """In plain words, on which data a probe's scores were measured."""
        if len(self.folds) > 1:
            return (
                f"{self.count('test'):,} {self.patches()}, each tested once in a cross-validation with "
                f"{len(self.folds)} folds of whole areas{self._gap()}; metrics on the "
                "pooled predictions of all folds"
            )
        chosen = f", validated on {self.count('val'):,}" if self.split_file("val") else ""
        area = f", areas kept on one side{self._gap()}" if self.section.split_by == "area" else ""
        return f"{self.count('test'):,} {self.patches()}, trained on {self.count('train'):,} others{chosen}{area}"

    def _gap(self) -> str:
        """How many patches the gap around test patches leaves out, in plain words; nothing where there is none."""
        if not self.section.gap:
            return ""
        counts = sorted({fold.left_out for fold in self.folds})
        several = len(self.folds) > 1
        found = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        return f", {found} patches adjacent to a test patch left out{' of each fold' if several else ''}"


def labels_of(dataset: PatchDataset) -> np.ndarray:
    """(N,) class indices or (N, L) multi-hot, int64.

    Raises:
        ValueError: when the dataset was read without labels.
    """
    if dataset.labels is None:
        raise ValueError(f"{dataset.root}: was read without labels")
    return dataset.labels.numpy()


class ReproductionData(NamedTuple):
    """The datasets of a reproduction."""

    main: Source
    """Pretrained on and probed."""
    eurosat: Source | None
    other: Source | None
    study: Source
    """What the studies pretrain on and probe: `main`, unless the config gives another, and asks for studies."""

    @property
    def probed(self) -> tuple[Source, ...]:
        """Those that the main table scores."""
        return tuple(source for source in (self.main, self.eurosat, self.other) if source is not None)


def read_data(config: ReproductionConfig, cache: StageCache) -> ReproductionData:
    """Make, pack and split what the config asks for, where that is not done yet.

    Raises:
        DataError: for everything that is wrong with the files.
        ConfigError: where too few patches are there for the folds.
    """

    def optional(key: str, section: SourceSection | None) -> Source | None:
        return None if section is None else read_source(key, section, config, cache)

    main = read_source("data", config.data, config, cache)
    study = optional("study", config.study.data) if config.studies else None
    return ReproductionData(main, optional("eurosat", config.eurosat), optional("other", config.other), study or main)


def read_source(key: str, section: SourceSection, config: ReproductionConfig, cache: StageCache) -> Source:
    """One dataset, made, packed and split where that is not done yet; arguments and errors as for `read_data`.

    Args:
        key: its name, for folders and messages.
        section: which patches.
        config: the seed of folds, and the model's size of patches.
        cache: of the stages.
    """
    if section.simulate is not None:
        path, splits = _simulated(key, section, section.simulate, cache)
    elif section.dataset_path is None or section.splits is None:
        raise ConfigError(f"{key}: give dataset_path and splits, or simulate")
    else:
        path, splits = section.dataset_path, {str(split): str(file) for split, file in section.splits.items()}
    folder_of_images = section.dataset == LABELLED_FOLDER  # its splits may be shares instead of files
    files = splits if folder_of_images else {name: str(find_split(file, path)) for name, file in splits.items()}
    if section.pack and not is_pack(path):
        path = _packed(key, section, path, files, config, cache)
    model = ModelConfig.of_size(img_size=config.model.img_size, published_behaviour=bool(config.published_behaviour))
    if section.folds is None and section.split_by == "given":
        return Source(key, section, path, (Fold("", files),), model)
    given = Source(key, section, path, tuple(Fold("", {"test": file}) for file in files.values()), model)
    parts = [given.dataset("test", fold=fold, labels=False) for fold in range(len(given.folds))]
    folds = divided(key, section, parts, config.seed, cache)
    return Source(key, section, path, folds, model)


def _simulated(
    key: str, section: SourceSection, asked: SimulateSection, cache: StageCache
) -> tuple[str, dict[str, str]]:
    info = DATASETS[section.dataset]
    kind = info.SIMULATOR
    if kind is None:
        raise ConfigError(f"{key}.simulate: there is no simulator of {info.NAME}; give {key}.dataset_path")
    inputs = {"kind": kind, **asked.model_dump(mode="json")}
    if asked.variant == STANDARD:
        del inputs["variant"]  # stages were made before there was another one

    def work(folder: Path) -> dict[str, str]:
        options = ["--kind", kind, "--out", str(folder / "dataset"), "--patches", str(asked.patches)]
        options += ["--seed", str(asked.seed), "--variant", asked.variant]
        if asked.splits:
            options += ["--splits", *(f"{value:g}" for value in asked.splits)]
        simulated.main(options)
        return {split: info.HUB.split_file.format(split) for split in SPLITS}

    stage = cache.stage(f"simulate/{key}", inputs, work)
    splits = {ALL_SPLIT: "samples.csv"} if section.folds else stage.result
    return str(stage.folder / "dataset"), splits


def _packed(
    key: str,
    section: SourceSection,
    path: str,
    files: dict[str, str],
    config: ReproductionConfig,
    cache: StageCache,
) -> str:
    published = bool(config.published_behaviour)
    size = config.model.img_size or IMAGE_SIZE
    recipe = make_recipe(section.dataset, section.crop, size, published)
    source = PackSource(path, list(files.values()), recipe)
    listing = hashlib.sha256(b"".join(map(source.listing_line, source.ids))).hexdigest()

    def work(folder: Path) -> int:
        return write_pack(source, folder / "pack", skip_bad=False, num_workers=section.num_workers)[0].count

    inputs = {"recipe": recipe.model_dump(mode="json"), "root": str(source.root), "listing": listing}
    return str(cache.stage(f"pack/{key}", inputs, work).folder / "pack")
