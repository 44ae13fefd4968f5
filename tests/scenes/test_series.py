"""`embed_series.py`: the cells of single runs, date by date, on one lattice; what is there is kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import CLEAR, CLOUD, embed, read, write_band
from scripts import left_behind
from series_files import DAYS, SIDE, files_of, moved, series, write_date

import scenes.products.zarr_group
import scenes.series.run
from scenes.run import SceneRun
from scenes.series.dates import scenes_in
from utils.errors import ConfigError, DataError, UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for number, day in enumerate(DAYS):
        qa = np.full(SIDE, CLEAR)
        qa[10 : 10 + 30 * number, 60:100] = CLOUD
        write_date(folder, day, qa=qa)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, place, checkpoint) -> Path:
    return series(place, checkpoint, tmp_path_factory.mktemp("made") / "out", "--stride", 20)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tif", ".png")}


def computed(monkeypatch) -> list[str]:
    """Folders of the runs whose cells are asked for from now on."""
    asked, cells = [], SceneRun.cells
    monkeypatch.setattr(SceneRun, "cells", lambda run: asked.append(run.folder.name[:8]) or cells(run))
    return asked


def test_dates_are_the_files_of_single_runs_byte_for_byte(tmp_path, place, checkpoint, made) -> None:
    for day, file in zip(DAYS, files_of(made), strict=True):
        assert file.name == f"embeddings_{day}T095231.tif"
        assert file.read_bytes() == embed(place / day, checkpoint, tmp_path / day, "--stride", 20).read_bytes()
    record = json.loads((made / "series.json").read_text())
    assert [date["time"] for date in record["dates"]] == [f"{d[:4]}-{d[4:6]}-{d[6:]}T09:52:31" for d in DAYS]
    assert set(record["files"]) == {path.name for path in made.iterdir()} - {"series.json"}
    assert record["stride"] == 20 and len(record["checkpoint_sha256"]) == 64


def test_hidden_cells_are_hidden_on_their_dates(made) -> None:
    shown = [np.isfinite(read(file)[0]).sum() for file in files_of(made)]
    assert shown[0] > shown[1] > shown[2] > 0
    dates = json.loads((made / "series.json").read_text())["dates"]
    assert [date["visible_cells"] for date in dates] == shown


def test_the_order_of_scenes_is_that_of_their_times(tmp_path, place, checkpoint, made) -> None:
    out = series([place / day for day in (DAYS[2], DAYS[0], DAYS[1])], checkpoint, tmp_path / "out", "--stride", 20)
    assert contents(out) == contents(made)


def test_a_killed_run_goes_on_after_the_dates_that_are_done(tmp_path, place, checkpoint, made, monkeypatch) -> None:
    out, cells = tmp_path / "out", SceneRun.cells

    def killed(run):
        if run.folder.name.startswith(DAYS[1]):
            raise KeyboardInterrupt
        return cells(run)

    with monkeypatch.context() as patch:
        patch.setattr(SceneRun, "cells", killed)
        with pytest.raises(KeyboardInterrupt):
            series(place, checkpoint, out, "--stride", 20)
    assert not (out / "series.json").exists() and not files_of(out)
    asked = computed(monkeypatch)
    assert contents(series(place, checkpoint, out, "--stride", 20)) == contents(made)
    assert asked == list(DAYS[1:])


def test_a_series_grows_date_by_date(tmp_path, place, checkpoint, made, monkeypatch) -> None:
    out = series([place / day for day in DAYS[:2]], checkpoint, tmp_path / "out", "--stride", 20)
    asked = computed(monkeypatch)
    series(place, checkpoint, out, "--stride", 20)
    assert asked == [DAYS[2]] and contents(out) == contents(made)
    series([place / day for day in DAYS[1:]], checkpoint, out, "--stride", 20)
    assert [file.name[11:19] for file in files_of(out)] == list(DAYS[1:]) and asked == [DAYS[2]]


def test_a_full_disk_leaves_what_was_there(tmp_path, place, checkpoint, made, monkeypatch) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(scenes.series.run, "write_placed", lambda *_: (_ for _ in ()).throw(UserError("no space left")))
        with pytest.raises(UserError, match="no space"):
            series(place, checkpoint, out, "--like", write_corner(tmp_path / "corner.tif"))
    assert contents(out) == before
    series(place, checkpoint, out, "--stride", 20)
    assert contents(out) == before and not (out / ".unfinished").exists()


def write_corner(path: Path) -> Path:
    """A raster of 40 x 50 pixels inside the scenes, 20 rows and 30 columns from their corner."""
    return write_band(path, np.zeros((1, 40, 50), np.uint8), origin=moved(20, 30))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[Path]:
    """Two scenes that share a part of their ground."""
    folder = tmp_path_factory.mktemp("two")
    return [write_date(folder, DAYS[0]), write_date(folder, DAYS[1], origin=moved(50, -30), side=(100, 120))]


@pytest.fixture(scope="module")
def single(tmp_path_factory, two, checkpoint) -> list[Path]:
    """The embedding files of both, each by a run of its own."""
    folder = tmp_path_factory.mktemp("single")
    return [embed(scene, checkpoint, folder / scene.name, "--cell", 4) for scene in two]


@pytest.fixture(scope="module")
def union(tmp_path_factory, two, checkpoint) -> Path:
    return series(two, checkpoint, tmp_path_factory.mktemp("union") / "out", "--cell", 4)


@pytest.mark.parametrize("extent", ["union", "intersection", "first"])
def test_scenes_with_other_extents_share_one_lattice(tmp_path, two, single, union, checkpoint, extent) -> None:
    out = union
    if extent != "union":
        out = series(two, checkpoint, tmp_path / "out", "--cell", 4, "--extent", extent)
    maps = []
    for path in (*files_of(out), *single):
        with rasterio.open(path) as file:
            maps.append((file.bounds, file.transform, file.read()))
    (bounds, grid, first), (other_bounds, _, second), *alone = maps
    assert bounds == other_bounds and first.shape == second.shape
    left, bottom, right, top = zip(*(tuple(one[0]) for one in alone), strict=True)
    expected = {
        "union": (min(left), min(bottom), max(right), max(top)),
        "intersection": (max(left), max(bottom), min(right), min(top)),
        "first": tuple(alone[0][0]),
    }
    assert tuple(bounds) == expected[extent]
    for placed, (_, own, cells) in zip((first, second), alone, strict=True):
        row, column = round((own.f - grid.f) / grid.e), round((own.c - grid.c) / grid.a)
        rows, columns = np.mgrid[: placed.shape[1], : placed.shape[2]]
        inside = (
            (rows >= row) & (rows < row + cells.shape[1]) & (columns >= column) & (columns < column + cells.shape[2])
        )
        np.testing.assert_array_equal(placed[:, inside], cells[:, rows[inside] - row, columns[inside] - column])
        assert np.isnan(placed[:, ~inside]).all()


def test_a_raster_says_which_ground(tmp_path, place, checkpoint, made) -> None:
    out = series(place, checkpoint, tmp_path / "out", "--stride", 20, "--like", write_corner(tmp_path / "corner.tif"))
    with rasterio.open(files_of(out)[0]) as file, rasterio.open(files_of(made)[0]) as whole:
        assert whole.bounds.left <= file.bounds.left <= moved(20, 30)[0] < file.bounds.left + 120
        assert file.shape == (11, 14)
        np.testing.assert_array_equal(file.read(), whole.read(window=whole.window(*file.bounds).round()))


def test_a_date_under_cloud_is_a_date_without_cells(tmp_path, checkpoint) -> None:
    qa = np.full(SIDE, CLOUD)
    qa[:6, :6] = CLEAR
    dates = [write_date(tmp_path, DAYS[0]), write_date(tmp_path, DAYS[1], qa=qa)]
    out = series(dates, checkpoint, tmp_path / "out")
    assert np.isnan(read(files_of(out)[1])).all()
    with pytest.raises(DataError, match="no cell of any date is visible"):
        series(dates[1:], checkpoint, tmp_path / "other")


def test_numbers_are_looked_at_before_anything_is_computed(tmp_path, checkpoint, monkeypatch) -> None:
    dates = [write_date(tmp_path, DAYS[0]), write_date(tmp_path, DAYS[1], qa=np.full(SIDE, CLOUD))]
    asked = computed(monkeypatch)
    with pytest.raises(DataError, match="all of it is fill, cloud or shadow"):
        series(dates, checkpoint, tmp_path / "out")
    assert not asked and not left_behind(tmp_path / "out")


def test_scenes_of_a_folder(tmp_path, place) -> None:
    assert scenes_in(place) == [place / day for day in DAYS]
    assert scenes_in(place / DAYS[0]) == [place / DAYS[0]]
    (tmp_path / "b.tif").touch()
    (tmp_path / "notes.txt").touch()
    assert scenes_in(tmp_path) == [tmp_path / "b.tif"]


def test_two_scenes_of_a_moment_are_refused(tmp_path, place, checkpoint) -> None:
    again = shutil.copytree(place / DAYS[0], tmp_path / "again")
    with pytest.raises(DataError, match=r"is of the same moment as .* \(2018-07-04T09:52:31\); give one of them"):
        series([place / DAYS[0], again], checkpoint, tmp_path / "out")
    assert not left_behind(tmp_path / "out")


def test_a_scene_of_another_projection_is_refused(tmp_path, place, checkpoint) -> None:
    other = write_date(tmp_path, DAYS[1], crs="EPSG:32634")
    with pytest.raises(DataError, match=r"EPSG:32634\) is not that of .*gdalwarp -t_srs EPSG:32633"):
        series([place / DAYS[0], other], checkpoint, tmp_path / "out")
    assert not left_behind(tmp_path / "out")


def test_pixels_between_those_of_the_first_are_refused(tmp_path, place, checkpoint) -> None:
    other = write_date(tmp_path, DAYS[1], origin=moved(0.3, 0))
    with pytest.raises(DataError, match="its pixels do not lie on those of"):
        series([place / DAYS[0], other], checkpoint, tmp_path / "out")


def test_ground_that_is_not_there(tmp_path, place, checkpoint) -> None:
    far = write_date(tmp_path, DAYS[1], origin=moved(4000, 0))
    with pytest.raises(DataError, match="no ground in common with all of the series; leave --extent out"):
        series([place / DAYS[0], far], checkpoint, tmp_path / "out", "--extent", "intersection")
    like = write_band(tmp_path / "far.tif", np.zeros((1, 9, 9), np.uint8), origin=moved(4000, 0))
    with pytest.raises(DataError, match=r"far.tif: has no ground in common .*; give a raster of their ground"):
        series(place, checkpoint, tmp_path / "out", "--like", like)


def test_times_that_no_file_says(tmp_path, checkpoint) -> None:
    for name in ("a", "b"):
        scene = write_date(tmp_path / name, DAYS[0], time=None)
        for file in scene.iterdir():
            file.rename(tmp_path / name / ("x_" + file.name.split("_02_T1_")[1]))
        scene.rmdir()
    scenes_of = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(DataError, match="nothing says when it was taken; give --dates"):
        series(scenes_of, checkpoint, tmp_path / "out")
    with pytest.raises(ConfigError, match="--dates: are 1, the scenes 2"):
        series(scenes_of, checkpoint, tmp_path / "out", "--dates", "2018-07-04")
    with pytest.raises(ConfigError, match="expected a date or a moment"):
        series(scenes_of, checkpoint, tmp_path / "out", "--dates", "4 July", "2018-07-04")
    out = series(scenes_of, checkpoint, tmp_path / "out", "--dates", "2018-07-20", "2018-07-04T09:52")
    assert [file.name for file in files_of(out)] == ["embeddings_20180704T095200.tif", "embeddings_20180720.tif"]


def test_the_folder_of_a_single_scene_is_refused(tmp_path, place, checkpoint) -> None:
    embed(place / DAYS[0], checkpoint, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds results of embed_scene\.py"):
        series(place, checkpoint, tmp_path / "out")


def test_without_zarr_a_line_says_so(tmp_path, place, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr(scenes.products.zarr_group.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--format both: needs the package zarr"):
        series(place, checkpoint, tmp_path / "out", "--format", "both")


def test_one_zarr_group_of_all_dates(tmp_path, place, checkpoint, made) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    import xarray

    out = shutil.copytree(made, tmp_path / "out")
    series(place, checkpoint, out, "--stride", 20, "--format", "zarr")
    assert not files_of(out), "the dates' files of the earlier run are of use, and go"
    with xarray.open_zarr(out / "embeddings.zarr", consolidated=False) as group:
        assert group.embedding.dims == ("time", "y", "x", "feature")
        assert [str(moment)[:19] for moment in group.time.values] == [
            f"{day[:4]}-{day[4:6]}-{day[6:]}T09:52:31" for day in DAYS
        ]
        for number, file in enumerate(files_of(made)):
            np.testing.assert_array_equal(group.embedding[number].values.transpose(2, 0, 1), read(file))
        with rasterio.open(files_of(made)[0]) as file:
            assert group.spatial_ref.attrs["GeoTransform"].split() == list(map(str, file.transform.to_gdal()))
