"""A context of a few seconds for the studies: a tiny model on a few patches of the samples."""

from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE
from tiny import TINY_MODEL

from configs.reproduction import ReproductionConfig
from eval.probing import protocols
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.experts import views
from training.stopping import StopSignals

EUROSAT = ROOT / "sample_dataset" / "eurosat-l-sample"


@pytest.fixture(scope="module", autouse=True)
def few_strengths():
    """Probes choose among two values of C; a test file takes it by its name. `tests/eval` has the whole grid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "C_GRID", (0.01, 1.0))
        patch.setattr(protocols, "QUICK", protocols.QUICK._replace(grid=(0.01, 1.0)))
        yield


@pytest.fixture
def small_views(monkeypatch):
    """Analyses of experts draw one image and permute three times; a test file takes it by its name."""
    monkeypatch.setattr(views, "SHOWN", 1)
    monkeypatch.setattr(views, "SHUFFLES", 3)
    monkeypatch.setattr(views, "TOKENS_PROJECTED", 60)


def small_source(root: Path, folder: Path, files: dict[str, str], counts: dict[str, int], dataset: str) -> dict:
    """A section with the first patches of every split of a sample."""
    splits = {}
    for split, file in files.items():
        names = (root / file).read_text().split()
        kept = names[:: max(1, len(names) // counts[split])][: counts[split]]  # EuroSAT's are sorted by class
        path = folder / f"{dataset}_{split}{Path(file).suffix}"
        path.write_text("\n".join(kept) + "\n")
        splits[split] = str(path)
    return {"dataset": dataset, "dataset_path": str(root), "splits": splits}


def make_context(folder: Path, more: dict | None = None, **study: object) -> StudyContext:
    """A context below a folder.

    Args:
        folder: of its files.
        more: keys of the config, in place of those here.
        study: keys of its section `study`.
    """
    ours = {split: f"bigearthnet-{split}.csv" for split in ("train", "val", "test")}
    theirs = {split: f"eurosat-{split}.txt" for split in ("train", "val", "test")}
    config = ReproductionConfig.model_validate(
        {
            "out_dir": str(folder / "out"),
            "model": TINY_MODEL,
            "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
            "data": small_source(SAMPLE, folder, ours, {"train": 24, "val": 12, "test": 16}, "bigearthnet_ls"),
            "eurosat": small_source(EUROSAT, folder, theirs, {"train": 20, "val": 10, "test": 10}, "eurosat_ls"),
            "bootstrap": {"draws": 100},
            "study": {"seeds": [0], "label_shares": [0.25, 1.0], "mask_ratios": [0.5, 0.75], "experts": [3],
                      "pools": ["cls", "mean", "all"], "noise_draws": 1, **study},
            **(more or {}),
        }
    )  # fmt: skip
    return StudyContext.prepare(config, StageCache(config.out_dir, report=lambda line: None), StopSignals())
