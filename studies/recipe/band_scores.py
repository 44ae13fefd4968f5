"""Scores of one set of simulated patches by the bands that an encoder is given of them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from datasets import simulated
from datasets.loader import build_dataset
from datasets.patches import Batch, Labels, PatchDataset
from eval.probing.protocols import run_protocol
from eval.probing.representation import Vectors
from eval.statistics.bootstrap import SHARE, Resampled, resample
from eval.statistics.spatial_blocks import neighbour_blocks
from eval.statistics.weighted_metrics import micro_map
from models.checkpoint import as_asked
from models.config import MISSING_BANDS, ModelConfig
from models.inference.embedder import Embedder
from models.moe_mae import MOEMAE
from models.pretrained import read_weights, weights_path
from studies.engine.stages import StageCache
from studies.recipe.sensors import PROBES, plain
from transformation.augmentations import BAND_SETS
from transformation.present_bands import PresentBands
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError
from utils.files import sha256, write_npz
from utils.sensors import OLI

SETS = {"seven": OLI.common, **BAND_SETS}
PROTOCOL = "calibrated_probe"
BATCH = 128
SPLIT_FILE = BigEarthNetInfo.HUB.split_file


class Case(NamedTuple):
    """One row of the study."""

    name: str
    model: MOEMAE
    inputs: dict[str, Any]
    """What its stages depend on."""

    @classmethod
    def of(cls, name: str) -> "Case":
        """Weights by a name, with `:mean` or `:rescale` behind it or without.

        Raises:
            CheckpointError: for weights that are not there, or were trained otherwise.
        """
        source, _, kind = name.rpartition(":") if name.endswith(MISSING_BANDS) and ":" in name else (name, "", None)
        path = weights_path(source)
        model = as_asked(read_weights(path), {"missing_bands": kind}).build()
        return cls(name, model, {"weights": sha256(path), "missing_bands": model.config.missing_bands})

    @property
    def place(self) -> str:
        """Of its stages."""
        return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in self.name)


def scores_of(cache: StageCache, weights: Sequence[str], patches: int, seed: int) -> dict[str, Any]:
    """Micro mAP by weights, probe and set of bands, with differences to the first weights.

    Raises:
        ConfigError: for too few patches.
    """
    if patches < 2:
        raise ConfigError(f"--patches {patches}: give at least 2, for a probe is fitted on them")
    cases = [Case.of(name) for name in weights]  # what is not there is said before anything is made
    folder, digest = simulated_patches(cache, patches, seed)
    found, blocks = {}, None
    for case in cases:
        train, test = (patches_for(case.model.config, folder, SPLIT_FILE.format(split)) for split in ("train", "test"))
        if blocks is None:
            blocks = neighbour_blocks(test.ids, test.places())
        inputs = {
            **case.inputs,
            "patches": digest,
            "protocol": PROTOCOL,
            "sets": {key: list(one) for key, one in SETS.items()},
        }
        stage = cache.stage(f"scores/{case.place}", inputs, partial(_write_scores, case, train, test))
        assert test.labels is not None
        with np.load(stage.folder / "scores.npz") as arrays:
            found[case.name] = {
                key: resample(micro_map(test.labels.numpy(), arrays[key]), blocks, seed, limits=SHARE) for key in arrays
            }
    first = found[weights[0]]
    return {name: {probe: _of_probe(one, first, probe) for probe in PROBES} for name, one in found.items()}


def _of_probe(found: dict[str, Resampled], first: dict[str, Resampled], probe: str) -> dict[str, Any]:
    keys = {bands: f"{probe}_{bands}" for bands in SETS}
    return {
        bands: {"score": plain(found[key].interval()), "minus_first": plain(found[key].minus(first[key]).interval())}
        for bands, key in keys.items()
    }


def simulated_patches(cache: StageCache, patches: int, seed: int, sensor: str = OLI.name) -> tuple[Path, str]:
    """Folder of simulated patches, half of them to fit and half to score, and the digest of their making."""
    options = ["--kind", "bigearthnet", "--patches", str(2 * patches + 1), "--seed", str(seed)]
    options += ["--splits", str(patches), "1", str(patches)]
    options += [] if sensor == OLI.name else ["--sensor", sensor]

    def work(folder: Path) -> None:
        simulated.main([*options, "--out", str(folder / "dataset")])

    stage = cache.stage("patches" if sensor == OLI.name else f"patches_{sensor}", {"options": options}, work)
    return stage.folder / "dataset", stage.digest


def patches_for(config: ModelConfig, folder: Path, file: str, labels: Labels = "error") -> PatchDataset:
    """The patches of a split file, held in memory, as a model takes them; `labels` "skip" leaves out those without."""
    dataset = build_dataset(
        BigEarthNetInfo.NAME,
        str(folder),
        file,
        labels=labels,
        image_size=config.img_size,
        published_behaviour=config.published_behaviour,
        meta_fields=config.meta_fields,
    )
    dataset.hold_in_memory()
    return dataset


def _write_scores(case: Case, train: PatchDataset, test: PatchDataset, folder: Path) -> None:
    """Probabilities (N, L) on the test patches, by probe and set of bands."""
    fitted_on, judged = (vectors_by_set(case.model, dataset) for dataset in (train, test))
    scores = {}
    for bands in SETS:
        # What is fitted with all bands scores the patches with any.
        with_bands = list(SETS) if bands == "seven" else [bands]
        every = Vectors(
            np.concatenate([judged[key].x for key in with_bands]),
            np.concatenate([judged[key].y for key in with_bands]),
            [name for key in with_bands for name in judged[key].ids],
        )
        found = run_protocol(PROTOCOL, fitted_on[bands], None, every, test.classes).scores
        parts = dict(zip(with_bands, np.split(found, len(with_bands)), strict=True))
        scores[f"own_{bands}"] = parts[bands]
        scores |= {f"seven_{key}": part for key, part in parts.items()} if bands == "seven" else {}
    write_npz(folder / "scores.npz", scores)


def vectors_of(model: MOEMAE, dataset: PatchDataset, metadata: bool) -> Vectors:
    """Embeddings of all patches as the weights pool them, with time and place or without."""
    embedder = Embedder(model, model.config.pool)
    parts = [embedder(batch.images, batch.meta if metadata else None, batch.valid) for batch in _batches(dataset)]
    assert dataset.labels is not None
    return Vectors(torch.cat(parts).numpy(), dataset.labels.numpy(), dataset.ids)


def _batches(dataset: PatchDataset) -> Iterator[Batch]:
    """All patches in their order."""
    for start in range(0, len(dataset), BATCH):
        yield dataset.batch(range(start, min(start + BATCH, len(dataset))))


def vectors_by_set(model: MOEMAE, dataset: PatchDataset) -> dict[str, Vectors]:
    """Embeddings of patches with every set of bands."""
    embedder, parts = Embedder(model, model.config.pool), {key: [] for key in SETS}
    given = {key: PresentBands.named(names) for key, names in SETS.items()}
    for batch in _batches(dataset):
        for key, bands in given.items():
            mask = bands.mask(len(batch.images), batch.images.device)
            parts[key].append(embedder(batch.images, batch.meta, batch.valid, mask))
    assert dataset.labels is not None
    return {key: Vectors(torch.cat(found).numpy(), dataset.labels.numpy(), dataset.ids) for key, found in parts.items()}
