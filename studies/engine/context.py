"""What every study and every section of the report works on: finished stages, config, data and encoders."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.reproduction import ReproductionConfig
from eval.statistics.bootstrap import ANY, Limits, Resampled, resample
from eval.statistics.weighted_metrics import Statistic
from studies.engine.data import ReproductionData, read_data
from studies.engine.runs import Runs
from studies.engine.stages import StageCache
from training.stopping import StopSignals
from utils.files import write_npz


class StudyContext(NamedTuple):
    """Config, data, encoders and finished stages of one reproduction."""

    cache: StageCache
    config: ReproductionConfig
    data: ReproductionData
    runs: Runs

    @classmethod
    def prepare(cls, config: ReproductionConfig, cache: StageCache, signals: StopSignals) -> "StudyContext":
        """Read, simulate, pack and split the datasets of a config, where that is not done yet.

        Raises:
            DataError: for everything that is wrong with the files.
            ConfigError: where too few patches are there for the folds.
        """
        data = read_data(config, cache)
        return cls(cache, config, data, Runs(cache, config, data, signals))

    @property
    def study_overrides(self) -> dict[str, Any]:
        """What the studies' runs have different from the main run, as overrides for `Runs.pretrained`."""
        study = self.config.study
        return {
            f"{name}.{key}": value
            for name, section in (("model", study.model), ("training", study.training))
            for key, value in section.model_dump(exclude_unset=True).items()
        }

    @property
    def bootstrap_inputs(self) -> dict[str, int]:
        """Seed and number of draws of every bootstrap: inputs of a stage that has one."""
        return {"seed": self.config.seed, "draws": self.config.bootstrap.draws}

    def bootstrap(
        self, statistic: Statistic, blocks: np.ndarray, progress: str | None = None, limits: Limits = ANY
    ) -> Resampled:
        """A statistic on bootstrap samples by the config's seed and number of draws; arguments as for `resample`."""
        return resample(statistic, blocks, self.config.seed, self.config.bootstrap.draws, progress, limits)

    def resampled(
        self,
        name: str,
        inputs: Mapping[str, Any],
        find: Callable[[], tuple[Mapping[str, Statistic], np.ndarray]],
        progress: str | None = None,
        limits: Mapping[str, Limits] | Limits = ANY,
    ) -> dict[str, Resampled]:
        """Statistics on the test set and on its bootstrap samples, by the config's seed and number of draws.

        Args:
            name: of the stage that keeps them.
            inputs: what the statistics and blocks depend on.
            find: gives the statistics and the blocks (N,); called only where the stage is not done yet.
            progress: label of a progress bar on a terminal.
            limits: the range of the statistics: one for all of them, or each by its key.
        """

        def work(folder: Path) -> dict[str, Any]:
            statistics, blocks = find()
            found = {key: self.bootstrap(one, blocks, progress) for key, one in statistics.items()}
            write_npz(folder / "draws.npz", {key: one.draws for key, one in found.items()})
            return {key: [_known(one.value), one.blocks, one.key] for key, one in found.items()}

        stage = self.cache.stage(name, {**inputs, **self.bootstrap_inputs}, work, quiet=True)
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
