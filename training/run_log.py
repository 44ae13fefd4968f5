"""What a run tells while it runs: a line and a log entry for every epoch, and now and then the loss curve."""

import time
from typing import Any

from datasets.patches import PatchDataset
from training.run_folder import CSV_COLUMNS, VALIDATION_COLUMNS, RunFolder
from utils.analysis_utils import plot_loss_curve, save_figure
from utils.reporting import reporter

CURVE_EVERY_SECONDS = 30.0
"""How often the loss curve is redrawn during a run."""


def utc_now() -> str:
    """The time, for a record."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class RunLog:
    """Of one run, written by its main process.

    Args:
        folder: of the run.
        dataset: that is trained on: logs and figures say whether it is simulated.
    """

    def __init__(self, folder: RunFolder, dataset: PatchDataset) -> None:
        self._folder, self._dataset = folder, dataset
        self._drawn = time.monotonic()

    def add(self, row: dict[str, Any], throughput: float) -> None:
        """Write and print an epoch.

        Args:
            row: its figures by name.
            throughput: in patches/s.
        """
        self._folder.append_metrics({key: row[key] for key in (*CSV_COLUMNS, *VALIDATION_COLUMNS) if key in row})
        entry = {**row, "simulated": self._dataset.simulated, "patches_per_second": round(throughput, 1)}
        self._folder.append_log({**entry, "time": utc_now()})
        validation = f"  val {row['val_loss']:8.3f}" if "val_loss" in row else ""
        reporter.info(
            f"epoch {row['epoch']:4d}  loss {row['train_loss']:8.3f}  masked {row['train_m_loss']:8.3f}{validation}"
            f"  lr {row['avg_lr']:.2e}  {throughput:7.0f} patches/s",
        )

    def draw_curve_if_due(self) -> None:
        """Redraw the loss curve if the last time is long enough ago."""
        if time.monotonic() - self._drawn > CURVE_EVERY_SECONDS:
            self.draw_curve()

    def draw_curve(self) -> None:
        """Draw the losses of all epochs; nothing where none is finished."""
        if self._folder.metrics.exists():
            save_figure(plot_loss_curve(self._folder.metrics, self._dataset.kind), self._folder.curve)
        self._drawn = time.monotonic()
