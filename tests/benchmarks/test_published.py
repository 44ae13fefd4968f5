"""The published code as the reference, on a folder of its layout: a process of its own, in turns with this project."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import run
from benchmarks.check import judged, reference_verdict
from benchmarks.machine import LINEAR, Limits, Product, Shape
from benchmarks.published import PublishedWork, published_folder
from benchmarks.report import Row, timed_row
from benchmarks.rows_embed import embedding_works
from benchmarks.rows_train import training_works
from benchmarks.setting import SampleBatch, Setting
from benchmarks.timing import alternate
from utils.errors import ConfigError

pytestmark = pytest.mark.runs

MODEL = """
import torch
from torch import nn
import utils.own  # a package of a name that this project has, too

print("the published code talks")

class Encoder(nn.Module):
    def __init__(self, img_size, patch_size, in_chans, width):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, width, patch_size, patch_size)
        self.meta = nn.Linear(2, width)

    def forward(self, x, meta_week, meta_hour, meta_lat, meta_lon):
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        meta = torch.stack([self.meta(m) for m in (meta_week, meta_hour, meta_lat, meta_lon)], 1)
        tokens = torch.cat([meta, meta[:, :1], tokens], 1)
        return tokens * 0, tokens

class MOEMAE(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(8, 7 * encoder.patch_size**2)

    def forward(self, x, **meta):
        assert self.training and x.shape[1:] == (7, 40, 40)
        _, tokens = self.encoder(x, **meta)
        mask = (torch.arange(100) % 4 != 0).float().expand(len(x), -1)
        return self.head(tokens[:, 5:]), mask, None, tokens.square().mean()

def build_model(size="S", img_size=40, patch_size=4, in_chans=7):
    assert size == "S"
    return Encoder(img_size, patch_size, in_chans, 8)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, code in {"models/moe_mae.py": MODEL, "utils/own.py": "MINE = True\n"}.items():
        path = tmp_path / "published" / name
        path.parent.mkdir(parents=True)
        path.write_text(code)
    return tmp_path / "published"


@pytest.fixture
def batch() -> SampleBatch:
    random = np.random.default_rng(0)
    images, meta = (
        torch.from_numpy(random.normal(size=size).astype(np.float32)) for size in ((3, 7, 40, 40), (3, 4, 2))
    )
    return SampleBatch(images, meta, torch.ones(3, 40, 40, dtype=torch.bool))


@pytest.fixture
def setting(folder) -> Setting:
    limits = Limits(4e9, Product(LINEAR, Shape(1, 1, 1)), 2e9, 8e9, 1e10, {})
    return Setting(torch.device("cpu"), limits, rounds=1, quick=True, published=folder)


def test_it_trains_and_embeds(folder, batch, setting) -> None:
    training = PublishedWork(folder, "train", batch, setting)
    losses = [training() for _ in range(8)]
    assert losses[-1] < losses[0] and training.parameters > 1000
    assert PublishedWork(folder, "embed", batch, setting)() == [3, 105, 8]


def test_a_table_with_the_published_code_says_so(folder, tmp_path, monkeypatch) -> None:
    def rows(setting: Setting) -> list[Row]:
        works = training_works(setting, ["reference"]) | embedding_works(setting, ["reference"])
        assert isinstance(works["reference"], PublishedWork)
        timing = alternate(works, setting.rounds, setting.device)["reference"]
        row = timed_row("work", timing, timing, unit="ms")
        return judged([row, row], reference_verdict("train", setting, {}, training_works), setting.published)

    monkeypatch.setitem(run.WORKS, "embed", rows)
    options = ["--quick", "--only", "embed", "--device", "cpu", "--rounds", "1", "--out", str(tmp_path / "out")]
    assert run.main([*options, "--published", str(folder)]) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text())
    assert record["reference"] == "published code" and record["rows"][0]["reference"] > 0
    assert "the reference is the published code itself, in published/" in path.with_suffix(".md").read_text()


def test_what_is_no_published_code_is_refused(folder, tmp_path, batch, setting) -> None:
    with pytest.raises(ConfigError, match=r"holds no models/moe_mae\.py"):
        published_folder(tmp_path)
    (folder / "models/moe_mae.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigError, match="No module named 'nothing_of_this_name'"):
        PublishedWork(folder, "train", batch, setting)
    (folder / "models/moe_mae.py").write_text(MODEL.replace("tokens.square().mean()", "tokens.sum() * float('nan')"))
    with pytest.raises(ConfigError, match="loss is nan"):
        PublishedWork(folder, "train", batch, setting)()


def test_the_process_ends_with_the_object(folder, batch, setting) -> None:
    work = PublishedWork(folder, "embed", batch, setting)
    process = work._process
    assert process.poll() is None and process.pid != os.getpid()
    del work
    assert process.poll() is not None
