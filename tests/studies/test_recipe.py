"""The ladder of recipes: a few rows on a few patches, and windows of a scene with a land-cover map."""

import csv
import itertools
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import SAMPLE
from studying import few_strengths  # noqa: F401
from tiny import TINY_MODEL, sample_ids, tiny_model, write_config, write_tif

from configs.recipe import LandCoverSection, read_recipe_config
from eval.probing.representation import Vectors
from models.checkpoint import write_checkpoint
from models.config import SIZES, ModelConfig
from studies.engine.runs import SplitRepresentation
from studies.engine.stages import StageCache
from studies.recipe import divisions
from studies.recipe.__main__ import main
from studies.recipe.benches import by_folds
from studies.recipe.land_cover import land_cover_source
from utils.errors import ConfigError, DataError
from utils.project_files import PROJECT

pytestmark = pytest.mark.runs

SIDE = 40
LAND_COVER = {
    "scene": "scene.tif",
    "land_cover": "map.tif",
    "classes": {"1": "field", "2": "wood", "3": "lake"},
    "bands": ["blue", "green", "red", "nir", "swir1", "swir2"],
    "scale": 1e-4,
    "block": 2,
    "folds": 3,
}


def write_scene(folder: Path, windows: int = 6) -> np.ndarray:
    """A scene of windows x windows, six bands, and its map: classes by column, the last row of windows unlabelled."""
    random = np.random.default_rng(0)
    size = windows * SIDE
    cover = (np.arange(size) // 20 % 3 + 1).astype(np.uint8) * np.ones((size, 1), np.uint8)
    cover[-SIDE:] = 0
    pixels = (500 * cover.astype(np.int64) + random.integers(200, 400, (6, size, size))).astype(np.uint16)
    write_tif(folder / "scene.tif", pixels)
    write_tif(folder / "map.tif", cover[None])
    return cover


def section(folder: Path, **changes: object) -> LandCoverSection:
    return LandCoverSection.model_validate({**LAND_COVER, "folder": str(folder), **changes})


def source_of(folder: Path, **changes: object):
    cache = StageCache(folder / "out", report=lambda text: None)
    return land_cover_source(section(folder, **changes), 0, ModelConfig.of_size(), cache)


def tiny_config(folder: Path, **changes: object) -> Path:
    """A bench of a few seconds: the same few patches in every place, three rows."""
    ids = sample_ids(44)
    splits = {}
    for split, names in {"train": ids[:24], "val": ids[24:26], "test": ids[26:]}.items():
        (folder / f"{split}.csv").write_text("\n".join(names) + "\n")
        splits[split] = str(folder / f"{split}.csv")
    given = {"dataset_path": str(SAMPLE), "splits": splits}
    write_checkpoint(folder / "weights.pth", tiny_model(), epoch=0, best_train_loss=0.0)
    values = {
        "out_dir": str(folder / "out"),
        "model": TINY_MODEL,
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
        "pretraining": given,
        "choice": given,
        "simulated": given,
        "embed": {"pools": ["cls", "mean"]},
        "baselines": [],
        "bootstrap": {"draws": 100},
        "ladder": {
            "given": {"title": "weights", "checkpoint": str(folder / "weights.pth"), "pool": "cls",
                      "seen": ["simulated"]},
            "paper": {"title": "paper", "seeds": [0, 1]},
            "twice": {"title": "two epochs", "after": "paper", "change": {"training.epochs": 2}},
        },
        **changes,
    }  # fmt: skip
    return write_config(folder / "recipe.yaml", **values)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    assert main(["--config_yaml", str(tiny_config(folder))]) == 0
    return folder


def test_every_row_stands_in_every_setting_that_it_may(done: Path) -> None:
    found = json.loads((done / "out" / "recipe.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    settings = ["simulated_with_metadata", "simulated_without_metadata"]  # fmt: skip
    assert list(found["settings"]) == settings
    assert list(rows["paper"]["scores"]) == settings
    assert not rows["given"]["scores"] and not rows["given"]["masked_loss"], "it was pretrained on those patches"
    assert list(rows["metadata"]["scores"]) == settings[:1], "a baseline of metadata needs them"
    assert rows["twice"]["views"] == 2 * rows["paper"]["views"] == 48
    assert [views for views, _ in rows["twice"]["loss_by_views"][0]] == [24, 48]
    assert rows["paper"]["seeds"] == [0, 1] and rows["paper"]["pool"] in ("cls", "mean")
    assert rows["given"]["encoder_parameters"] < rows["given"]["parameters"]
    strongest = rows["random_features_and_statistics_and_metadata"]["scores"]["simulated_with_metadata"]
    assert strongest["features"] == 512 + 28 + 8


def test_differences_are_those_of_the_scores(done: Path) -> None:
    found = json.loads((done / "out" / "recipe.json").read_text())
    rows = {row["name"]: row["scores"] for row in found["rows"]}
    name, protocol = "simulated_with_metadata", "knn5"
    one, before = (rows[row][name][protocol] for row in ("twice", "paper"))
    rival = rows["random_features_and_statistics_and_metadata"][name][protocol]
    assert one["minus_before"][0] == pytest.approx(one["score"][0] - before["score"][0], abs=0.01)
    assert one["minus_rival"][0] == pytest.approx(one["score"][0] - rival["score"][0], abs=0.01)
    assert one["minus_rival"][1] <= one["minus_rival"][0] <= one["minus_rival"][2]
    best = found["settings"][name]["best"][protocol]
    scores = {
        row["title"]: row["scores"][name][protocol]["score"][0]
        for row in found["rows"]
        if name in row["scores"] and row["kind"] == "baseline"
    }
    assert scores[best] == max(scores.values())
    assert one["minus_best"][0] == pytest.approx(one["score"][0] - scores[best], abs=0.01)
    loss = found["rows"][-1]["masked_loss"]["simulated"]
    gap = loss["model"][0] - loss["interpolation"][0]
    assert loss["model_minus_interpolation"][0] == pytest.approx(gap, abs=0.01)


def test_report_and_tables_are_made_from_the_result(done: Path, capsys) -> None:
    assert (done / "out" / "report.html").stat().st_size > 20_000
    config = str(done / "recipe.yaml")
    assert main(["--config_yaml", config, "--tables"]) == 0
    shown = capsys.readouterr().out
    assert "| two epochs | " in shown and "| statistics + metadata | 36 | " in shown and "| – |" in shown
    assert "metadata withheld: kNN-5 | " in shown
    steps = shown[shown.index("| row | seeds | ") :]
    assert "to the row it changes" in steps and "| two epochs | " in steps and "statistics" not in steps
    assert "| two epochs | " in (done / "out" / "recipe.md").read_text()
    with pytest.raises(DataError, match="no such result"):
        main(["--config_yaml", config, "--tables", "--set", "result=elsewhere.json"])


def test_windows_are_labelled_by_what_they_show(tmp_path: Path) -> None:
    cover = write_scene(tmp_path)
    source = source_of(tmp_path)
    assert source.multilabel and source.classes == ("field", "lake", "wood")
    assert len(source.folds) == 3 and source.count("test") == 30, "six windows in each of five labelled rows"
    tested = [name for fold in range(3) for name in source.dataset("test", fold=fold).ids]
    assert sorted(tested) == sorted(source.dataset("all").ids)
    labels = dict(zip(source.dataset("all").ids, source.labels("all").tolist(), strict=True))
    present = {source.classes.index(name) for number, name in ((1, "field"), (2, "wood"), (3, "lake"))
               if (cover[:SIDE, SIDE : 2 * SIDE] == number).any()}  # fmt: skip
    assert set(np.flatnonzero(labels["images/window_000_001.tif"])) == present
    for fold in range(3):
        parts = {split: set(source.blocks(source.dataset(split, fold=fold).ids)) for split in ("train", "val", "test")}
        assert not parts["test"] & (parts["train"] | parts["val"]), "squares stay on one side"
    assert (source.dataset("all").batch([0]).images[0, 0] == 0).all(), "the missing coastal band is the mean"
    assert "SR_B1 not in the images" in source.remarks()[0]


def test_folds_share_one_representation_of_all_patches(tmp_path: Path) -> None:
    write_scene(tmp_path, windows=5)
    source, asked = source_of(tmp_path), []

    def numbers(split: str, fold: int) -> SplitRepresentation:
        asked.append(split)
        ids = source.dataset(split, fold=fold).ids
        x = np.array([[float(name[-7:-4])] for name in ids])  # the window's column
        return SplitRepresentation(Vectors(x, source.labels(split, fold), ids), "digest")

    of_fold = by_folds(source, numbers)
    for fold in range(3):
        part = of_fold("test", fold)
        assert part.vectors.ids == source.dataset("test", fold=fold).ids and part.digest.startswith("digest/")
        assert (part.vectors.y == source.labels("test", fold)).all()
        assert part.vectors.x[:, 0].tolist() == [float(name[-7:-4]) for name in part.vectors.ids]
    assert asked == ["all"]


def test_what_is_wrong_with_a_scene_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scene.tif: no such file; set land_cover.folder"):
        source_of(tmp_path)
    write_scene(tmp_path)
    with pytest.raises(DataError, match="too few for 3 folds"):
        source_of(tmp_path, block=6)
    with rasterio.open(tmp_path / "map.tif") as file:
        cover = file.read()
    write_tif(tmp_path / "map.tif", cover, origin=(0.0, 0.0))
    with pytest.raises(DataError, match="lies on another grid"):
        source_of(tmp_path)


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ({"b": {"title": "b", "after": "a"}}, "ladder.b.after: is a, which is no row above it"),
        ({"a": {"title": "a", "change": {"training.epoch": 3}}}, "ladder.a.change: .*training.epoch"),
        ({"a": {"title": "a", "checkpoint": "x.pth", "seeds": [0, 1]}}, "ladder.a.seeds: is for rows that are"),
        ({"a": {"title": "a", "seen": ["sea"]}}, "ladder.a.seen: knows no 'sea'"),
        ({"a": {"name": "a"}}, "ladder.a.name: unknown key"),
    ],
)
def test_an_impossible_ladder_is_refused_at_once(tmp_path: Path, ladder: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe_config(str(tiny_config(tmp_path, ladder=ladder)), [], ())


def test_a_row_takes_over_the_changes_before_it(tmp_path: Path) -> None:
    overrides = [
        "ladder.twice.change={training.batch_size: 4}",
        "ladder.z_last={title: last, after: twice, change: {training.epochs: 3, training.batch_size: 6}}",
    ]
    config = read_recipe_config(str(tiny_config(tmp_path)), overrides, ())
    assert config.changes("z_last") == {"training.batch_size": 6, "training.epochs": 3}
    assert config.changes("paper") == {}


def test_a_row_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    out = tmp_path / "not_made"
    with pytest.raises(DataError, match="--rows: the ladder has no mine; it has "):
        main(["--config_yaml", str(config), "--set", f"out_dir={out}", "--rows", "mine"])
    assert not out.exists()


def test_the_second_reference_that_the_ladders_file_names_is_a_config() -> None:
    """100 times the views of every row, as the comment at its top says."""
    file = PROJECT / "configs/recipe_ladder.yaml"
    text = file.read_text(encoding="utf-8")
    command = text.split("it has not been run yet:")[1].split("\n\n")[0].replace("#", "").replace("\\\n", " ")
    overrides = [value for before, value in itertools.pairwise(shlex.split(command)) if before == "--set"]
    short, long = (read_recipe_config(str(file), given, ()) for given in ([], overrides))
    patches, epochs = long.pretraining.simulate.splits[0], long.training.epochs
    assert patches * epochs == 100 * short.pretraining.simulate.splits[0] * short.training.epochs
    assert long.model.device == "cuda" and long.out_dir != short.out_dir
    for config, size in ((short, "XXS"), (long, "S")):
        widths, change = SIZES[size], config.ladder["one_expert"].change
        assert config.model.size == size and change["model.dfirsth"] == 2 * widths["dfirsth"]
        assert change["model.dlasth"] == 2 * widths["dlasth"]


def test_every_division_is_scored_and_they_differ(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    ids = [line for split in ("train", "test") for line in (tmp_path / f"{split}.csv").read_text().split()]
    (tmp_path / "all.csv").write_text("\n".join(ids) + "\n")
    real = f"{{dataset_path: {SAMPLE}, splits: {{all: {tmp_path / 'all.csv'}}}, folds: 3}}"
    asked = ["--config_yaml", str(config), "--set", f"real={real}", "--rows", "given", "paper"]
    with pytest.raises(DataError, match=r"has no real patches in folds; give real\.dataset_path and real\.folds"):
        divisions.main(["--config_yaml", str(config)])
    with pytest.raises(ConfigError, match="--divisions 1: give at least 2"):
        divisions.main([*asked, "--divisions", "1"])
    assert divisions.main([*asked, "--divisions", "3"]) == 0
    with (tmp_path / "out" / divisions.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    by_title: dict[str, list[float]] = {}
    for row in rows:
        by_title.setdefault(row["representation"], []).append(float(row["map_micro"]))
    assert {len(several) for several in by_title.values()} == {3}
    assert len(set(by_title["paper"])) > 1, "the divisions are not the same"
    assert len(set(by_title["class prior"])) > 1
    text = (tmp_path / "out" / divisions.TEXT).read_text()
    line = next(line for line in text.splitlines() if line.startswith("| paper |"))
    mean = np.mean(by_title["paper"])
    assert f"| 2 | {mean:.1f} (" in line and text.count("–") == 1, "one baseline is the best"
