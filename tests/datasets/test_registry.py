"""A dataset is one row of `DATASETS` and the module that reads it; whatever names datasets follows."""

import importlib

import pytest

from datasets.download.source import PUBLISHED
from datasets.loader import build_dataset
from datasets.pack.format import LABEL_NAMES
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
