"""docs/migrating.md names what there is, and what those who know the published code try first is answered in a line."""

import ast
import re

import numpy as np
import pytest
from conftest import ROOT, SAMPLE

from classification_models.scores import score_probe
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from models import MOEMAE, build_model
from transformation.transformer import ZScoreNormalize
from utils.build.renaming import project_modules
from utils.data_config import BandStatistics, BigEarthNetInfo
from utils.errors import ConfigError, DataError

GUIDE = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """Published, here, what is different."""
    lines = [line for line in GUIDE.split("\n") if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_every_new_name_exists() -> None:
    modules = project_modules(ROOT)
    named = re.findall(r"`from ([\w.]+) import ([\w, ]+)`", "\n".join(row[1] for row in rows()))
    assert len(named) >= 12
    for module, names in named:
        body = ast.parse(modules[module].read_text(encoding="utf-8")).body
        body += [inner for node in body if isinstance(node, ast.If) for inner in node.body]  # if TYPE_CHECKING
        defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined |= {alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert set(names.split(", ")) <= defined, module


def test_the_published_names_of_the_notebooks_are_all_there() -> None:
    old = "\n".join(row[0] for row in rows())
    for name in ("MOEMAE", "build_model", "load_model", "BigEarthNetDatasetLS", "EuroSATDatasetLS", "ToFloat",
                 "CenterCrop40", "ZScoreNormalize", "BigEarthNetInfo", "compute_geomoemae_embeddings",
                 "layer_report_simple", "evaluate", "joblib.load"):  # fmt: skip
        assert name in old


def test_a_split_file_before_the_folder() -> None:
    csv = SAMPLE / "bigearthnet-train.csv"
    assert len(BigEarthNetDatasetLS(SAMPLE, csv)) > 0
    for dataset in (BigEarthNetDatasetLS, EuroSATDatasetLS):
        with pytest.raises(
            DataError, match=r"bigearthnet-train\.csv: is a split file and .* a folder; give the folder"
        ):
            dataset(csv, SAMPLE)


@pytest.mark.parametrize("statistics", [(9405.0,) * 7, [1.0] * 7, np.ones(7), None])
def test_mean_and_spread_as_two_values(statistics: object) -> None:
    with pytest.raises(ConfigError, match=r"ZScoreNormalize: .*BandStatistics\(mean, std\)"):
        ZScoreNormalize(statistics, (6016.0,) * 7)
    ZScoreNormalize(BandStatistics((1.0,), (2.0,)))
    assert isinstance(BigEarthNetInfo.STATISTICS, BandStatistics)


def test_a_model_around_an_encoder() -> None:
    model = build_model("XXS", depth=1, embed_dim=12, num_heads=2, num_groups=1, dfirsth=4, dlasth=4)
    for given, name in ((model, "MOEMAE"), (model.encoder, "Encoder"), ("S", "str")):
        with pytest.raises(ConfigError, match=rf"MOEMAE: takes a ModelConfig, not a {name}; build_model\(size\) gives"):
            MOEMAE(given)
    assert callable(score_probe)
