"""What every study and every part of the report is given: where to work, with what recipe, on which data."""

from typing import Any, NamedTuple

from configs.reproduction import ReproductionConfig
from studies.engine.data import ReproductionData
from studies.engine.runs import Runs
from studies.engine.stages import Workbench


class Bench(NamedTuple):
    """The working place of a reproduction."""

    workbench: Workbench
    config: ReproductionConfig
    data: ReproductionData
    runs: Runs

    @property
    def short(self) -> dict[str, Any]:
        """What the studies' runs have different from the main run, as overrides for `Runs.pretrained`."""
        study = self.config.study
        return {
            f"{name}.{key}": value
            for name, section in (("model", study.model), ("training", study.training))
            for key, value in section.model_dump(exclude_unset=True).items()
        }
