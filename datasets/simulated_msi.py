"""Simulated patches with the twelve bands of Sentinel-2's MSI at 30 m, in the layout of BigEarthNet-Landsat."""

from pathlib import Path
from typing import Any

from datasets.bigearthnet import BigEarthNetDatasetLS
from utils.data_config import BandStatistics, SimulatedMSIInfo


class SimulatedMSIDataset(BigEarthNetDatasetLS):
    """What `python -m datasets.simulated --kind bigearthnet --sensor msi` writes; arguments as the base class takes."""

    name = SimulatedMSIInfo.NAME
    sensor = SimulatedMSIInfo.SENSOR

    def __init__(
        self,
        root: str | Path,
        csv: str | Path,
        *,
        statistics: BandStatistics = SimulatedMSIInfo.STATISTICS,
        **options: Any,
    ) -> None:
        super().__init__(root, csv, statistics=statistics, **options)
