"""Figures on resampled test sets, worked out once and kept."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.statistics.bootstrap import ANY, Limits, Resampled, resample
from eval.statistics.weighted_metrics import Statistic
from studies.engine.context import Bench
from utils.files import write_npz


def resampled_stage(
    bench: Bench,
    name: str,
    inputs: Mapping[str, Any],
    find: Callable[[], tuple[Mapping[str, Statistic], np.ndarray]],
    progress: str | None = None,
    limits: Mapping[str, Limits] | Limits = ANY,
) -> dict[str, Resampled]:
    """Statistics on the test set and on its resampled versions, by the config's seed and number of draws.

    Args:
        bench: where.
        name: of the stage.
        inputs: what the statistics and blocks depend on.
        find: gives the statistics and the blocks (N,); called only where the work is not done yet.
        progress: what to call the work in a bar on a terminal.
        limits: what the figures can be: all of them, or each by its key.
    """
    settings = {"seed": bench.config.seed, "draws": bench.config.bootstrap.draws}

    def work(folder: Path) -> dict[str, Any]:
        statistics, blocks = find()
        found = {key: resample(one, blocks, **settings, progress=progress) for key, one in statistics.items()}
        write_npz(folder / "draws.npz", {key: one.draws for key, one in found.items()})
        return {key: [_known(one.value), one.blocks, one.key] for key, one in found.items()}

    stage = bench.workbench.stage(name, {**inputs, **settings}, work, quiet=True)
    with np.load(stage.folder / "draws.npz") as draws:
        return {
            key: Resampled(
                np.nan if value is None else value,
                draws[key],
                blocks,
                which,
                limits[key] if isinstance(limits, Mapping) else limits,
            )
            for key, (value, blocks, which) in stage.result.items()
        }


def _known(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if np.isfinite(value) else None
