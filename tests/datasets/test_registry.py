"""A dataset is one row of `DATASETS` and the module that reads it; whatever names datasets follows."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from packing import EUROSAT

from datasets.download.source import PUBLISHED
from datasets.eurosat import EuroSATDatasetLS, EuroSATLayout
from datasets.loader import build_dataset
from datasets.pack.format import LABEL_NAMES, Recipe
from datasets.pack.source import PackSource
from datasets.patches import PatchDataset
from utils.data_config import DATASETS, EuroSATInfo


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_is_complete(name: str) -> None:
    info = DATASETS[name]
    module, _, reader = info.READER.partition(":")
    assert issubclass(getattr(importlib.import_module(module), reader), PatchDataset)
    assert set(info.SENSOR.bands) <= set(info.FILE_BANDS)
    assert len(info.STATISTICS.mean) == len(info.STATISTICS.std) == len(info.SENSOR.bands)
    assert PUBLISHED[name].counts == info.SPLIT_SIZES and LABEL_NAMES[name] == info.LABEL_NAMES


def test_a_new_row_is_read_by_its_own_class(monkeypatch) -> None:
    class Info(EuroSATInfo):
        NAME, READER, LABEL_FILES = "another_ls", f"{__name__}:Reader", True

    monkeypatch.setitem(DATASETS, "another_ls", Info)
    monkeypatch.setattr(importlib.import_module(__name__), "Reader", lambda *args, **options: (args, options), False)
    args, options = build_dataset("another_ls", "nowhere", "split.txt", labels="skip", image_size=40)
    assert args == ("nowhere", "split.txt") and options["labels"] == "skip"


class PrefixedLayout(EuroSATLayout):
    """Files under another name than their patch."""

    def files(self, root: Path, patch_id: str) -> tuple[Path, ...]:
        return super().files(root, patch_id.removeprefix("another-"))

    def split_names(self, split: Path) -> list[str]:
        return [f"another-{name}" for name in super().split_names(split)]

    def label_indices(self, patch_id: str, files: Sequence[Path], text: bytes | None) -> list[int]:
        return super().label_indices(patch_id.removeprefix("another-"), files, text)


LAYOUT = PrefixedLayout()


def test_a_new_row_is_packed_by_its_own_module(monkeypatch, tmp_path) -> None:
    class Info(EuroSATInfo):
        NAME, READER = "another_ls", f"{__name__}:Reader"

    monkeypatch.setitem(DATASETS, "another_ls", Info)
    recipe = Recipe.model_construct(dataset="another_ls", crop="resize", image_size=40, published_resize=False)
    source = PackSource(EUROSAT, ["eurosat-val.txt"], recipe)
    known = EuroSATDatasetLS(EUROSAT, "eurosat-val.txt")
    assert source.ids == [f"another-{name}" for name in known.ids]
    chunk = source.read_chunk(source.ids[:3])
    assert not chunk.bad
    np.testing.assert_array_equal(chunk.pixels.numpy(), known.read(range(3)).pixels)
