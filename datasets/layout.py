"""How a dataset's files become the rows of a pack: each dataset's own module says it, packing and checking follow."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets.pack.format import TableRow
from utils.data_config import DATASETS, BandStatistics


class Layout(ABC):
    """The files of a dataset.

    Attributes:
        multilabel: whether a patch may have several labels.
        has_metadata: whether patches have time and place.
    """

    multilabel: bool
    has_metadata: bool

    @abstractmethod
    def split_names(self, split: Path) -> list[str]:
        """The patches that a split file lists. Raises DataError naming it."""

    @abstractmethod
    def files(self, root: Path, patch_id: str) -> tuple[Path, ...]:
        """The GeoTIFF of a patch and, where labels have files of their own, its label file, which may not be there."""

    @abstractmethod
    def statistics(self, published_behaviour: bool) -> BandStatistics:
        """What the z-scores use where a config does not say."""

    @abstractmethod
    def label_indices(self, patch_id: str, files: Sequence[Path], text: bytes | None) -> list[int]:
        """A patch's labels as indices of the dataset's `LABEL_NAMES`.

        Args:
            patch_id: the patch.
            files: as `files` gives them, for errors.
            text: of the label file; None where labels have none.

        Raises:
            DataError: naming the file, for unknown labels.
        """

    @abstractmethod
    def label_tensor(self, indices: Sequence[Sequence[int]]) -> Tensor:
        """Indices of N patches as (N,) int64, or multi-hot (N, L). Raises ValueError for impossible ones."""

    def time(self, patch_id: str) -> str:
        """The acquisition time in ISO form; empty where the dataset has none. Raises DataError for a wrong id."""
        return ""

    def columns(self, rows: Sequence[TableRow], published_behaviour: bool) -> np.ndarray | None:
        """Metadata columns (N, len(FIELDS)) of a pack's rows; None where the dataset has no metadata.

        Raises:
            ValueError, IndexError: for a damaged table.
        """
        return None


def layout_of(dataset: str) -> Layout:
    """The layout of a key of `DATASETS`: the `LAYOUT` of the module that reads it."""
    return import_module(DATASETS[dataset].READER.partition(":")[0]).LAYOUT
