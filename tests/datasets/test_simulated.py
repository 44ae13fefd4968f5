"""Simulated patches: published layouts, reproducibility, and answers to simple predictors as on real patches."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import warm_python
from conftest import ROOT

from datasets.simulated import main, simulate, simulate_chunks, split_counts
from datasets.simulator.baselines import baseline_inputs, baseline_table
from datasets.simulator.calibration import MIN_PATCHES, calibrate
from datasets.simulator.constants import CENTRE, CHUNK, CONSTANTS, SIZES, SPECTRA_FILE, GeneratorConstants
from datasets.simulator.landscape import class_spectra, season_state, smooth_field, sun_cosine
from datasets.simulator.overpasses import Places, iso_week, scenes
from transformation.image_statistics import image_statistics
from utils.data_config import BigEarthNetInfo, EuroSATInfo
from utils.data_utils import parse_patch_id
from utils.errors import ConfigError, DataError, UserError
from utils.randomness import generator


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def bigearthnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "bigearthnet-l"
    run("--kind", "bigearthnet", "--out", out, "--patches", 60, "--seed", 5, "--splits", 40, 8, 12)
    return out


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "eurosat"
    run("--kind", "eurosat", "--out", out, "--patches", 40, "--seed", 5, "--splits", 0.5, 0.25, 0.25)
    return out


def test_the_benchs_patches_are_still_the_same() -> None:
    """Scores on simulated patches are comparable only while seeds give what they gave when they were published.

    Labels to the bit; pixels to one digital number, since processors round otherwise.
    """
    patches = simulate(40, seed=777)
    assert (
        hashlib.sha256(patches.labels.numpy().tobytes()).hexdigest()
        == "d7defb9fdfba9dbd36261917030154beaf8e498ba4fb8c1a626c40ae99ef78bd"
    )
    images = patches.images.numpy().astype(np.float64)
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), BAND_MEANS, atol=0.01)
    np.testing.assert_allclose(images[::8, :, 20, 20], SOME_PIXELS, atol=1)


BAND_MEANS = [8588.677, 8776.467, 9424.079, 9458.509, 13838.234, 12652.227, 10887.021]
SOME_PIXELS = [
    [8165, 8220, 8761, 8327, 14978, 13320, 10759],
    [8528, 8470, 9970, 9271, 24563, 13674, 10668],
    [9094, 9172, 9833, 9934, 13650, 14804, 12010],
    [8489, 8686, 9253, 9824, 13693, 14203, 11757],
    [8495, 9160, 10206, 11020, 15241, 18050, 15858],
]


def test_bigearthnet_layout(bigearthnet: Path) -> None:
    ids = {path.stem for path in (bigearthnet / "images").glob("*.tif")}
    assert len(ids) == 60
    assert {path.name for path in (bigearthnet / "labels").iterdir()} == {f"{i}_labels_metadata.json" for i in ids}
    header, *listed = (bigearthnet / "samples.csv").read_text().splitlines()
    assert header == "0"
    assert sorted(listed) == sorted(ids)
    splits = [(bigearthnet / f"bigearthnet-{name}.csv").read_text().splitlines() for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [40, 8, 12]
    assert set().union(*splits) == ids


def test_bigearthnet_files_are_as_published(bigearthnet: Path) -> None:
    for path in (bigearthnet / "images").glob("*.tif"):
        with rasterio.open(path) as file:
            assert file.count == 7
            assert set(file.dtypes) == {"uint16"}
            assert file.nodata is None
            assert file.compression is None
            assert file.interleaving.value == "PIXEL"
            assert file.crs.to_epsg() in range(32629, 32637)
            assert file.res == (30.0, 30.0)
            assert (file.height, file.width) in SIZES
            box = json.loads((bigearthnet / "labels" / f"{path.stem}_labels_metadata.json").read_text())["coordinates"]
            centre = file.transform * (file.width / 2, file.height / 2)
        assert centre == pytest.approx(((box["ulx"] + box["lrx"]) / 2, (box["uly"] + box["lry"]) / 2))
        assert box["lrx"] - box["ulx"] == box["uly"] - box["lry"] == 1200


def test_bigearthnet_labels_are_as_published(bigearthnet: Path) -> None:
    for path in (bigearthnet / "labels").iterdir():
        entry = json.loads(path.read_text())
        assert list(entry) == ["labels", "coordinates", "projection", "tile_source", "acquisition_date"]
        assert entry["labels"]
        assert set(entry["labels"]) <= set(BigEarthNetInfo.CORINE)
        assert entry["projection"].startswith('PROJCS["WGS 84 / UTM zone ')
        when = parse_patch_id(path.name.removesuffix("_labels_metadata.json")).when
        assert entry["acquisition_date"] == f"{when:%Y-%m-%d %H:%M:%S}"


def test_ids_lie_in_bigearthnets_year_and_hours() -> None:
    patches = simulate(2 * CHUNK, 0)
    assert patches.hour.min() > 9.3
    assert patches.hour.max() < 11.92
    assert patches.places.day.min() >= 0
    assert patches.places.day.max() < 365
    assert 0.06 < patches.five_digit_time.float().mean() < 0.18
    assert (patches.hour[patches.five_digit_time] < 10).all()
    # 1 June 2017 was a Thursday of ISO week 22; 1 January 2018, 214 days later, a Monday of week 1.
    assert iso_week(torch.tensor([0, 213, 214])).tolist() == [22, 52, 1]


def test_lost_zeros_stand_in_some_names(bigearthnet: Path) -> None:
    times = [name.split("_")[2].split("T")[1] for name in (p.stem for p in (bigearthnet / "images").iterdir())]
    short = [time for time in times if len(time) == 5]
    assert short
    assert all(time.startswith("9") for time in short)
    assert all(len(time) == 6 for time in times if time not in short)


def test_eurosat_layout(eurosat: Path) -> None:
    paths = list((eurosat / "eurosat-l").glob("*/*.tif"))
    assert Counter(path.parent.name for path in paths) == dict.fromkeys(EuroSATInfo.CLASSES, 4)
    splits = [(eurosat / f"eurosat-{name}.txt").read_text().splitlines() for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [20, 10, 10]
    assert {name.removesuffix(".jpg") for split in splits for name in split} == {path.stem for path in paths}
    for path in paths:
        assert path.stem.startswith(f"{path.parent.name}_")
        with rasterio.open(path) as file:
            assert (file.count, set(file.dtypes), file.nodata) == (8, {"uint16"}, None)
            assert file.height in (21, 22) and file.width in (21, 22)
            kelvin = file.read(8) * 0.00341802 + 149.0
        assert 250 < kelvin.mean() < 325


def test_same_seed_same_bytes_and_other_seed_others(bigearthnet: Path, tmp_path: Path) -> None:
    common = ("--kind", "bigearthnet", "--patches", 60, "--splits", 40, 8, 12)
    run(*common, "--out", tmp_path / "again", "--seed", 5)
    run(*common, "--out", tmp_path / "other", "--seed", 6)
    first = files_of(bigearthnet)
    assert files_of(tmp_path / "again") == first
    assert not set(files_of(tmp_path / "other")) & {name for name in first if name.startswith("images/")}


@pytest.mark.parametrize("kind", ["bigearthnet", "eurosat"])
def test_a_patch_does_not_depend_on_how_many_are_asked_for(kind: str) -> None:
    few, many = simulate(5, 3, kind=kind), simulate(CHUNK + 5, 3, kind=kind)
    assert torch.equal(few.images.int(), many.images[:5].int())
    assert torch.equal(few.labels, many.labels[:5])
    assert len(many.images) == CHUNK + 5


def test_an_earlier_simulation_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    common = ("--kind", "eurosat", "--patches", 10, "--splits", 4, 3, 3, "--out")
    out = tmp_path / "out"
    run(*common, out, "--seed", 1)
    first = files_of(out)
    run(*common, out, "--seed", 2)
    assert set(files_of(out)) == set(first)
    assert files_of(out) != first

    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        run(*common, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("mine")
    with pytest.raises(DataError, match="not a simulated dataset"):
        run(*common, tmp_path / "full")
    with pytest.raises(DataError, match="is a file"):
        run(*common, tmp_path / "full" / "photo.jpg")
    assert (tmp_path / "full" / "photo.jpg").read_text() == "mine"
    assert not list(tmp_path.glob(".*")), "no temporary folder is left"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.simulator.patch_writer._write_tiff", full_disk)
    with pytest.raises(UserError, match="no space left"):
        run("--kind", "bigearthnet", "--out", tmp_path / "out", "--patches", 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--kind", "bigearthnet", "--patches", "10"], "--out"),
        (["--kind", "eurosat", "--out", "x"], "--patches"),
        (["--kind", "bigearthnet", "--out", "x", "--patches", "2"], "--patches 2"),
        (["--kind", "bigearthnet", "--out", "x", "--patches", "10", "--splits", "5", "5", "5"], "sum to 10"),
        (["--kind", "bigearthnet", "--out", "x", "--patches", "10", "--splits", "10", "0", "0"], "at least one"),
        (["--kind", "bigearthnet", "--out", "x", "--patches", "10", "--device", "toaster"], "--device toaster"),
    ],
)
def test_bad_values_are_one_clear_line(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_bad_arguments_exit_2(tmp_path: Path) -> None:
    command = ["-m", "datasets.simulated", "--out", tmp_path / "x", "--patches", "10"]
    for kind, line in (("bigearthnet", "error: --splits 1 1 1"), ("moon", "invalid choice")):
        done = warm_python.run([*command, "--kind", kind, "--splits", "1", "1", "1"], cwd=ROOT)
        assert done.returncode == 2
        assert line in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_split_counts() -> None:
    assert split_counts(304, [192, 48, 64], "bigearthnet") == (192, 48, 64)
    assert split_counts(10, [0.6, 0.2, 0.2], "eurosat") == (6, 2, 2)
    assert split_counts(27_000, None, "eurosat") == (16_200, 5_400, 5_400)


def test_labels_follow_the_visible_map() -> None:
    patches = simulate(CHUNK, 1)
    assert torch.equal(patches.labels, patches.shares >= CONSTANTS.visible_share)
    torch.testing.assert_close(patches.shares.sum(1), torch.ones(CHUNK))
    assert patches.labels.sum(1).min() >= 1
    assert not torch.equal(patches.shares, patches.surfaces), "the map is not always what the ground shows"


def test_fill_is_rare_and_never_a_whole_patch() -> None:
    fill = (simulate(4 * CHUNK, 2).images[..., CENTRE, CENTRE].int() == 0).all(1).flatten(1).float().mean(1)
    assert 0.02 < (fill > 0).float().mean() < 0.13
    assert fill.max() < 0.6


def test_smooth_fields_have_unit_variance_and_are_smooth() -> None:
    field = smooth_field((2000,), 4, 40, generator(0, "field"))
    torch.testing.assert_close(field.var(0), torch.ones(40, 40), atol=0.15, rtol=0)
    step = (field[..., 1:] - field[..., :-1]).square().mean()
    assert step < 0.05, "neighbouring pixels differ little"


def test_sun_and_season() -> None:
    zero = torch.zeros(1)
    # At the June solstice (day 172, week 25) the sun stands 23.44 degrees from the zenith of the equator at noon.
    noon = Places(*[zero.long()] * 4, torch.tensor([12 * 3600]), zero, zero)
    assert sun_cosine(noon, torch.tensor([172 / 7 + 0.5])).item() == pytest.approx(np.cos(np.radians(23.44)), abs=1e-3)
    lat, open_land = torch.tensor([50.0, 50.0, 37.0, 37.0]), torch.ones(4, 1)
    summer_north, winter_north, summer_south, winter_south = season_state(
        lat, torch.tensor([28.0, 2.0, 28.0, 8.0]), open_land
    )
    assert summer_north > 0.8 > -0.8 > winter_north
    assert winter_south > summer_south, "the dry south is green in winter"


def test_the_world_is_the_same_for_every_seed() -> None:
    world = scenes()
    assert len(world.lat) > 100
    assert world.lat.min() > 36 and world.lat.max() < 69
    assert torch.equal(world.day, scenes(GeneratorConstants()).day)


def test_table_of_spectra_is_complete() -> None:
    table = json.loads(SPECTRA_FILE.read_text(encoding="utf-8"))["classes"]
    assert tuple(table) == BigEarthNetInfo.CORINE
    assert {entry["source"] for entry in table.values()} == {"real patches", "assumed"}
    for entry in table.values():
        assert (entry["source"] == "real patches") == (entry["patches"] >= MIN_PATCHES)
        np.linalg.cholesky(np.array(entry["covariance"]) + 1e-8 * np.eye(7))
    mean, factor = class_spectra()
    assert mean.shape == (43, 7) and factor.shape == (43, 7, 7)
    water, forest = (BigEarthNetInfo.CORINE.index(name) for name in ("Sea and ocean", "Broad-leaved forest"))
    assert mean[water, 4] < 0.05 < 0.2 < mean[forest, 4], "near infrared: dark water, bright leaves"


def test_image_statistics_leave_fill_out() -> None:
    image = torch.full((1, 7, 4, 4), 10, dtype=torch.int32)
    image[..., :2] = 0
    image[..., 3] = 30
    assert image_statistics(image, image[:, 0] > 0)[0].tolist() == [20.0] * 7 + [10.0] * 7 + [10.0] * 7 + [30.0] * 7


@pytest.mark.runs
def test_simple_predictors_score_as_on_real_patches() -> None:
    """Loose bounds: 768 patches to fit and 768 to test, instead of 2,000 each as in the table of the docstring."""
    table = baseline_table(*baseline_inputs(simulate_chunks(6 * CHUNK, 0)).split(3 * CHUNK))
    prior, statistics, metadata, both, surfaces, mapped = table.values()
    assert 27 < prior < 39
    assert 46 < statistics < 60
    assert 45 < metadata < 60
    assert max(statistics, metadata) + 5 < both < 70
    assert both + 5 < surfaces < mapped
    assert mapped > 95


@pytest.mark.runs
def test_calibration_reproduces_the_committed_table(real_patches: Path, tmp_path: Path) -> None:
    copy = tmp_path / "spectra.json"
    copy.write_bytes(SPECTRA_FILE.read_bytes())
    counts = calibrate(real_patches, copy)
    assert min(counts.values()) >= MIN_PATCHES
    before, after = (json.loads(path.read_text(encoding="utf-8"))["classes"] for path in (SPECTRA_FILE, copy))
    for name in BigEarthNetInfo.CORINE:
        np.testing.assert_allclose(after[name]["mean"], before[name]["mean"], atol=1e-3, err_msg=name)


def test_the_embedded_sample_is_what_its_readme_says(sample: Path) -> None:
    """The first patches again: ids and labels equal, numbers equal up to one (other processors round otherwise)."""
    train = (sample / "bigearthnet-train.csv").read_text().splitlines()
    assert len(train) == 192
    patches = simulate(8, 2)
    for index, patch_id in enumerate(train[:8]):
        entry = json.loads((sample / "labels" / f"{patch_id}_labels_metadata.json").read_text())
        names = [name for name, present in zip(BigEarthNetInfo.CORINE, patches.labels[index], strict=True) if present]
        assert entry["labels"] == names
        with rasterio.open(sample / "images" / f"{patch_id}.tif") as file:
            stored = file.read().astype(int)
        height, width = patches.sizes[index].tolist()
        top, left = (45 - height) // 2, (45 - width) // 2
        again = patches.images[index].int().numpy()[:, top : top + height, left : left + width]
        assert np.abs(stored - again).max() <= 1
    assert "**simulated**" in (sample / "README.md").read_text()


def test_the_embedded_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "sample_dataset").rglob("*") if path.is_file()) < 9.5e6
