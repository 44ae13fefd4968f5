"""The files of a fine-tuning run, and what they say of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from configs.finetuning import SEGMENTATION
from finetuning.decoder import HeadSizes, build_head
from finetuning.learner import LinearHead
from finetuning.lora import merged, with_adapters
from models.checkpoint import EXTRA_KEY, read_checkpoint
from models.moe_mae import MOEMAE
from models.pooling import vector_width
from training.run_folder import RunFolder
from utils.errors import CheckpointError

ENTRY = "finetuning"
"""In the checkpoint's own entry: what was trained."""
NAME = "finetuned"
COLUMNS = ("epoch", "train_loss", "val_score", "best_score", "avg_lr")
SCORES = "scores.json"
CONFUSIONS = "test_confusions.npz"


class FinetuningFolder(RunFolder):
    """As `training.run_folder.RunFolder`, with other columns in its log."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, NAME, with_validation=True)
        self.columns = COLUMNS
        self.best = self.folder / f"{NAME}_best.pth"
        self.metrics = self.folder / f"log_{NAME}.csv"
        self.curve = self.folder / f"curves_{NAME}.png"
        self.scores = self.folder / SCORES
        self.confusions = self.folder / CONFUSIONS

    def _files(self) -> Iterable[Path]:
        return [*super()._files(), self.scores, self.confusions]


class Finetuned(NamedTuple):
    """What a finished run is used by."""

    model: MOEMAE
    head: nn.Module
    classes: tuple[str, ...]
    task: str
    about: dict[str, Any]
    """See `finetuning.learner.Learner.about`."""
    path: Path


def load_finetuned(folder: Path, device: torch.device) -> Finetuned:
    """The best weights of a run.

    Raises:
        CheckpointError: where the folder holds none, or what it holds is damaged.
    """
    path = FinetuningFolder(folder).best
    if not path.is_file():
        raise CheckpointError(f"{folder}: holds no {path.name}; give the folder of a run of finetune.py (--run)")
    checkpoint = read_checkpoint(path)
    entry = checkpoint.content.get(EXTRA_KEY, {}).get(ENTRY)
    if entry is None:
        raise CheckpointError(f"{path}: holds no fine-tuned head; give the folder of a run of finetune.py (--run)")
    model = checkpoint.build(device)
    if entry["mode"] == "lora":
        adapted, adapters = with_adapters(model, entry["rank"], entry["alpha"], 0)
        adapters.load_state_dict(entry["adapters"])
        model = merged(adapted)
    classes, about = tuple(entry["classes"]), entry["about"]
    if entry["task"] == SEGMENTATION:
        sizes = about["head"]
        head: nn.Module = build_head(HeadSizes(**{**sizes, "mixing": tuple(sizes["mixing"])}))
    else:
        head = LinearHead(vector_width(model.config, about["pool"]), len(classes))
    head.load_state_dict(entry["head"])
    return Finetuned(model, head.to(device).eval(), classes, entry["task"], about, path)


def plot_curves(metrics: Path, measure: str, simulated: bool) -> Figure:
    """Loss and score of every epoch."""
    table = pd.read_csv(metrics)
    figure = Figure(figsize=(8, 4), layout="constrained")
    left = figure.subplots()
    left.plot(table["epoch"], table["train_loss"], color="C0", label="loss, training")
    left.set(xlabel="epoch", ylabel="loss")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = left.twinx()
    right.plot(table["epoch"], table["val_score"], color="C1", label=f"{measure}, validation")
    right.set(ylabel=measure, ylim=(0, 1))
    lines = [line for axes in (left, right) for line in axes.get_lines()]
    left.legend(handles=lines, frameon=False, loc="center right")
    left.set_title(f"Fine-tuning{' on simulated data' if simulated else ''}", loc="left")
    return figure
