"""A labelled scene to a map: resuming, hidden pixels, shifting, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from labelled_ground import SIDE, UNKNOWN, ground_config, ground_numbers, read_config, write_ground
from scene_files import read, write_band, write_product
from scripts import left_behind

from configs.finetuning import LabelledSceneSection
from finetune import main
from finetuning.compare import main as compare
from finetuning.folder import FinetuningFolder, load_finetuned
from finetuning.mapping import Seen, token_map
from finetuning.predict import map_probabilities, statistics_of
from finetuning.run import Finetuning, finetune
from finetuning.sources import ImageReader, Source, scene_source
from scenes.embed import WindowMetadata
from scenes.input.grids import SceneGrid
from scenes.windows import make_frame
from training.stopping import StopSignals
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import CheckpointError, ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> dict:
    return write_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def run_folder(ground, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    assert main(["--config_yaml", str(ground_config(folder, ground))]) == 0
    return folder / "run"


def test_a_run_leaves_log_config_provenance_and_scores(run_folder) -> None:
    table = pd.read_csv(run_folder / "log_finetuned.csv")
    assert list(table["epoch"]) == [1, 2] and table["best_score"].is_monotonic_increasing
    manifest = json.loads((run_folder / "manifest_finetuned.json").read_text())
    assert manifest["classes"] == ["class 0", "class 1", "class 2"] and manifest["packages"]
    scores = json.loads((run_folder / "scores.json").read_text())["test"]
    assert scores["low"] <= scores["miou"] <= scores["high"]
    assert (run_folder / "curves_finetuned.png").exists() and (run_folder / "config_finetuned.yaml").exists()
    assert not list(run_folder.glob(".*")), "nothing unfinished is left"


@pytest.mark.parametrize("mode", ["frozen", "lora", "whole"])
def test_a_stopped_run_goes_on_with_the_same_bits(ground, tmp_path, mode: str) -> None:
    weights = []
    for name, stop_after in (("whole", None), ("stopped", 4)):
        config = read_config(ground_config(tmp_path / name, ground, encoder__mode=mode))
        if stop_after is not None:
            with StopSignals() as signals:
                run = Finetuning(config, False, signals)
                one_step = run._one_step

                def stop(number: int, one_step=one_step, signals=signals, last=stop_after) -> float:
                    if number + 1 == last:
                        signals.received = 15
                    return one_step(number)

                run._one_step = stop
                assert run.run() == 0
            assert not (tmp_path / name / "run" / "scores.json").exists()
        with StopSignals() as signals:
            assert finetune(config, stop_after is not None, signals) == 0
        weights.append(FinetuningFolder(tmp_path / name / "run"))
    first, second = (torch.load(folder.best, weights_only=True) for folder in weights)
    assert first["moe_mae"]["finetuning"].keys() == second["moe_mae"]["finetuning"].keys()
    for key in ("head", "adapters"):
        one, other = (content["moe_mae"]["finetuning"][key] for content in (first, second))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(value, second["model_state"][name]) for name, value in first["model_state"].items())
    assert weights[0].metrics.read_text() == weights[1].metrics.read_text()
    assert weights[0].scores.read_text() == weights[1].scores.read_text()


def test_a_config_survives_being_written(ground, run_folder, tmp_path) -> None:
    given = read_config(ground_config(tmp_path, ground, training__weight_path=str(run_folder)))
    assert read_config(run_folder / "config_finetuned.yaml").model_dump() == given.model_dump()


def test_resuming_refuses_another_config_and_a_finished_run_says_so(ground, run_folder, tmp_path, capfd) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    before = (copy / "scores.json").read_bytes()
    with StopSignals() as signals:
        assert finetune(read_config(ground_config(tmp_path, ground)), True, signals) == 0
    assert (copy / "scores.json").read_bytes() == before
    config = read_config(ground_config(tmp_path, ground, training__learning_rate=0.1, training__weight_path=str(copy)))
    with StopSignals() as signals, pytest.raises(CheckpointError, match="another config"):
        finetune(config, True, signals)


def test_a_map_has_names_colours_and_nodata(ground, run_folder, tmp_path) -> None:
    out = tmp_path / "map"
    assert main(["--predict", ground["scene"], "--run", str(run_folder), "--out", str(out), "--device", "cpu"]) == 0
    with rasterio.open(out / "classes.tif") as file:
        classes = file.read(1)
        assert file.nodata == UNKNOWN and file.shape == SIDE and file.res == (30.0, 30.0)
        assert json.loads(file.tags()["classes"]) == ["class 0", "class 1", "class 2"]
        assert len(set(list(file.colormap(1).values())[:3])) == 3
    assert "<Category>class 1</Category>" in (out / "classes.tif.aux.xml").read_text()
    with rasterio.open(out / "probabilities.tif") as file:
        found = file.read()
        assert np.isnan(file.nodata) and file.descriptions == ("class 0", "class 1", "class 2")
    hidden = np.zeros(SIDE, bool)
    hidden[:9, :30] = True
    assert ((classes == UNKNOWN) == hidden).all() and (np.isnan(found).all(axis=0) == hidden).all()
    assert np.allclose(found[:, ~hidden].sum(axis=0), 1, atol=1e-5)
    assert (found.argmax(axis=0)[~hidden] == classes[~hidden]).all()
    record = json.loads((out / "prediction.json").read_text())
    assert sum(record["shares"].values()) == pytest.approx(1)


def test_what_hidden_pixels_hold_influences_nothing(ground, run_folder, tmp_path) -> None:
    maps = []
    for name in ("first", "second"):
        numbers, _ = ground_numbers()
        qa = read(next(Path(ground["scene"]).glob("*QA_PIXEL.TIF")))[0]
        if name == "second":
            numbers[:, qa != qa[-1, -1]] = 50_000
        scene = write_product(tmp_path / name, numbers, qa)
        out = tmp_path / f"{name}_map"
        assert main(["--predict", str(scene), "--run", str(run_folder), "--out", str(out), "--device", "cpu"]) == 0
        maps.append(read(out / "probabilities.tif"))
    assert np.array_equal(*maps, equal_nan=True)


def probabilities_of(run_folder: Path, numbers: np.ndarray) -> np.ndarray:
    tuned = load_finetuned(run_folder, CPU)
    grid = SceneGrid(None, rasterio.Affine.identity(), *numbers.shape[1:])
    source = Source("array", ImageReader("array", numbers), grid, WindowMetadata())
    return np.concatenate(list(map_probabilities(source, tuned, statistics_of(tuned))), axis=1)


@pytest.mark.parametrize(("down", "right", "tolerance"), [(20, 0, 1e-5), (40, 20, 1e-5), (8, 3, 0.2)])
def test_a_shifted_scene_gives_the_same_inner_pixels(run_folder, down: int, right: int, tolerance: float) -> None:
    numbers, _ = ground_numbers((220, 240))
    whole = probabilities_of(run_folder, numbers)
    part = probabilities_of(run_folder, numbers[:, down:, right:])
    inner = slice(70, 140)
    same = part[:, inner, inner]
    there = whole[:, down + 70 : down + 140, right + 70 : right + 140]
    assert np.abs(same - there).max() <= tolerance


def test_a_failed_map_leaves_the_earlier_one(ground, run_folder, tmp_path) -> None:
    out = tmp_path / "map"
    arguments = ["--run", str(run_folder), "--out", str(out), "--device", "cpu"]
    assert main(["--predict", ground["scene"], *arguments]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    numbers, _ = ground_numbers()
    dark = write_product(tmp_path / "dark", numbers, np.full(SIDE, 22280))
    with pytest.raises(DataError, match="give another scene"):
        main(["--predict", str(dark), *arguments])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_images_with_masks(ground, tmp_path) -> None:
    numbers, classes = ground_numbers((48, 480))
    for at in range(10):
        part = slice(at * 48, at * 48 + 48)
        write_band(tmp_path / "images" / f"{at}.tif", numbers[:, :, part])
        write_band(tmp_path / "masks" / f"{at}.tif", classes[None, :, part], nodata=UNKNOWN)
    folder = {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}
    changes = {"ground": {"folder": folder, "classes": {"class 0": "forest", "class 2": "water"}}}
    config = ground_config(tmp_path, ground, **changes)
    assert main(["--config_yaml", str(config)]) == 0
    assert load_finetuned(tmp_path / "run", CPU).classes == ("forest", "water")
    (tmp_path / "masks" / "3.tif").unlink()
    with pytest.raises(DataError, match="has no mask"):
        main(["--config_yaml", str(config)])


def test_a_scene_of_six_bands_is_mapped_with_the_mean_in_place_of_the_seventh(ground, run_folder, tmp_path) -> None:
    numbers, _ = ground_numbers()
    for number, band in zip((1, 2, 3, 4, 5, 7), numbers[1:], strict=True):
        write_band(tmp_path / f"LE07_L2SP_193024_20020704_20200831_02_T1_SR_B{number}.TIF", band[None])
    out = tmp_path / "map"
    assert main(["--predict", str(tmp_path), "--run", str(run_folder), "--out", str(out)]) == 0
    assert (read(out / "classes.tif")[0] != 255).any()
    source = scene_source(LabelledSceneSection(scene=str(tmp_path), labels="none"), BigEarthNetInfo.STATISTICS)
    assert source.missing == ("SR_B1",)
    with source.open() as reader:
        filled = reader.read(0, 0, *numbers.shape[1:])
    assert np.array_equal(filled[1:], numbers[1:])
    assert (filled[0] == np.where((numbers[1:] != 0).all(axis=0), round(BigEarthNetInfo.STATISTICS.mean[0]), 0)).all()


def test_refusals(ground, run_folder, tmp_path) -> None:
    _, classes = ground_numbers()
    other = write_band(tmp_path / "other.tif", classes[None], crs=rasterio.CRS.from_epsg(32650), nodata=UNKNOWN)
    scenes = [{"scene": ground["scene"], "labels": str(other)}]
    with pytest.raises(DataError, match=r"other\.tif"):
        main(["--config_yaml", str(ground_config(tmp_path, ground, ground={"scenes": scenes}))])
    with pytest.raises(ConfigError, match="have no 'swamp'"):
        main(["--config_yaml", str(ground_config(tmp_path, ground, ground__classes={"swamp": "wet"}))])
    with pytest.raises(DataError, match="too few for 3 parts"):
        main(["--config_yaml", str(ground_config(tmp_path, ground, ground__block=1000))])
    with pytest.raises(ConfigError, match="the decoder reaches"):
        main(["--config_yaml", str(ground_config(tmp_path, ground, head__mixing=[9, 9, 9, 9, 9]))])
    with pytest.raises(ConfigError, match="takes scenes, or a folder"):
        main(["--config_yaml", str(ground_config(tmp_path, ground, ground={}))])
    with pytest.raises(CheckpointError, match="holds no finetuned_best"):
        main(["--predict", ground["scene"], "--run", str(tmp_path), "--out", str(tmp_path / "map")])
    with pytest.raises(ConfigError, match="is required with --bands"):
        main(["--predict", "x.tif", "--run", str(run_folder), "--out", str(tmp_path / "map"), "--bands", "blue,green"])
    with pytest.raises(DataError, match=r"x\.tif"):
        main(["--predict", "x.tif", "--run", str(run_folder), "--out", str(tmp_path / "map")])
    config = ground_config(tmp_path, ground, ground__block=1000, training__weight_path=str(tmp_path / "refused"))
    with pytest.raises(DataError, match="too few for 3 parts"):
        main(["--config_yaml", str(config)])
    assert not left_behind(tmp_path / "map") and not left_behind(tmp_path / "refused"), "no folder of a refused run"


def test_comparing_with_single_pixels(ground, run_folder, tmp_path) -> None:
    linear = tmp_path / "linear"
    assert main(["--config_yaml", str(ground_config(linear, ground, head={"kind": "linear"}))]) == 0
    out = tmp_path / "compared"
    assert compare(["--run", f"decoder={run_folder}", "--run", f"linear={linear / 'run'}", "--out", str(out)]) == 0
    record = json.loads((out / "comparison.json").read_text())
    rows = record["rows"]
    assert list(rows) == ["decoder", "linear", "logistic regression", "random forest", "RCF"]
    assert rows["random forest"]["miou"] > rows["decoder"]["miou"], "ten steps learn less than a forest"
    difference = rows["RCF"]["first_minus"]
    assert difference["value"] == pytest.approx(rows["decoder"]["miou"] - rows["RCF"]["miou"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert len((out / "comparison.csv").read_text().splitlines()) == 6
    assert compare(["--run", f"one={run_folder}", "--only-runs", "--out", str(tmp_path / "one")]) == 0
    assert list(json.loads((tmp_path / "one" / "comparison.json").read_text())["rows"]) == ["one"]
    other = tmp_path / "other"
    assert main(["--config_yaml", str(ground_config(other, ground, training__seed=1))]) == 0
    with pytest.raises(DataError, match="was scored on other squares"):
        compare(["--run", str(run_folder), "--run", f"other={other / 'run'}", "--out", str(out)])
    with pytest.raises(DataError, match="give the folder of a finished run"):
        compare(["--run", str(run_folder), "--run", str(tmp_path), "--out", str(out)])


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_an_image_of_six_named_bands(ground, tmp_path, mode: str) -> None:
    numbers, _ = ground_numbers()
    reflectance = (numbers[1:] * 2.75e-5 - 0.2) * 10_000
    path = write_band(tmp_path / "etm.tif", reflectance.round().astype(np.int16), nodata=-9999)
    bands = ["blue", "green", "red", "nir", "swir1", "swir2"]
    scenes = [{"scene": str(path), "labels": ground["labels"], "bands": bands, "scale": 1e-4}]
    config = ground_config(tmp_path, ground, ground={"scenes": scenes, "block": 20}, encoder__mode=mode)
    assert main(["--config_yaml", str(config)]) == 0
    assert load_finetuned(tmp_path / "run", CPU).about["missing_bands"] == ["SR_B1"]
    options = ["--bands", ",".join(bands), "--scale", "0.0001,0", "--device", "cpu"]
    out = tmp_path / "map"
    assert main(["--predict", str(path), "--run", str(tmp_path / "run"), "--out", str(out), *options]) == 0
    assert json.loads((out / "prediction.json").read_text())["missing_bands"] == ["SR_B1"]
    assert np.isfinite(read(out / "probabilities.tif")).all()


def test_what_stands_for_a_missing_band_influences_no_token(run_folder) -> None:
    model = load_finetuned(run_folder, CPU).model
    numbers, _ = ground_numbers((40, 80))
    grid = SceneGrid(None, rasterio.Affine.identity(), 40, 80)
    found = []
    for coastal in (9_000, 20_000):
        numbers[0] = coastal
        source = Source("array", ImageReader("array", numbers), grid, WindowMetadata(), missing=("SR_B1",))
        frame = make_frame(grid, 40, 4, 20, 4)
        normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
        found.append(
            token_map(model, Seen(ImageReader("", numbers.copy()), frame, normalize, source.metadata, source.bands))
        )
    assert torch.equal(*found)
