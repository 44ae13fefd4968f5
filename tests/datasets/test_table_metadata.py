"""Time and place of one's own images, by columns of their table."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from tiny import TINY_MODEL, write_config, write_tif

from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.labelled_table import read_table
from datasets.mixture import MixedDataset
from embed.compute_embed import main as embed
from models import MOEMAE, build_model
from models.checkpoint import write_checkpoint
from utils.errors import DataError
from utils.metadata import column_of, encode_metadata

REFLECTANCES = FolderOptions(scale=2.75e-5, offset=-0.2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of 40 x 40 pixels, Landsat's numbers."""
    random = np.random.default_rng(0)
    for number in range(4):
        levels = 9000 + 500 * np.arange(7)[:, None, None]
        pixels = (levels + random.integers(0, 300, (7, 40, 40))).astype(np.uint16)
        write_tif(tmp_path / f"{number}.tif", pixels)
    return tmp_path


def table(folder: Path, header: str, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def known(path: Path, *names: str) -> list[list[float | None]]:
    """Fields of every image; None for what is not known."""
    columns = read_table(path).metadata
    assert columns is not None
    return [[None if np.isnan(x) else float(x) for x in column_of(columns, name)] for name in names]


@pytest.mark.parametrize(
    ("header", "first", "second", "hour"),
    [
        ("file,label,datetime,lat,lon", "2020-08-02T18:30,52.0,-114.5", ",,", 18),
        ("file,label,Date,Latitude,Longitude", "2020-08-02,52.0,-114.5", "nan,NaN,None", None),
        ("file,label,date,time,lat,lng", "2020-08-02,18:30,52.0,-114.5", ",12:00,,", 18),
        ("file,label,acquisition_date,acquisition_time,lat,lon", "2020-08-02,18:30:05Z,52.0,-114.5", "NaT,,,", 18),
        ("file,label,date,time,lat,lon", "2020-08-02,2020-08-02T18:30,52.0,-114.5", ",,,", 18),
        ("file,label,date,time,lat,lon", "2020-08-02T18:30,11:00,52.0,-114.5", ",,,", 18),
        ("file,label,timestamp,date,lat,lon", "1596393000,2020-08-02,52.0,-114.5", ",,,", None),
        ("file,label,timestamp,lat,lon", "2020-08-02 20:30:00+02:00,52.0,-114.5", ",,", 18),
        ("file,label,date,lat,lon", "2020-08-02 00:00:00,52.0,-114.5", ",,", None),
        ("file,label,date,lat,lon", "2020-08-02T00:00:00+02:00,52.0,-114.5", ",,", None),
        ("file,label,date,lat,lon", "20200802T000000,52.0,-114.5", ",,", None),
    ],
)
def test_columns_of_a_table(images: Path, header: str, first: str, second: str, hour: int | None) -> None:
    path = table(images, header, f"0.tif,a,{first}", f"1.tif,b,{second}")
    assert known(path, "week", "hour", "lat", "lon") == [[31, None], [hour, None], [52.0, None], [-114.5, None]]


def test_midnight_is_a_time_where_others_are_not(images: Path) -> None:
    path = table(images, "file,label,datetime", "0.tif,a,2020-08-02T00:00:00", "1.tif,b,2020-08-02T10:00:00")
    assert known(path, "hour", "lat") == [[0, 10], [None, None]]
    path = table(images, "file,label,datetime", "0.tif,a,2020-08-02 00:00:00", "1.tif,b,2020-08-02")
    assert known(path, "week", "hour") == [[31, 31], [None, None]]


@pytest.mark.parametrize(
    ("header", "cells", "said"),
    [
        ("file,label,date", "02/08/2020", "column date is passed over: '02/08/2020' is no date or time of ISO 8601"),
        ("file,label,date", "2020", "column date is passed over: '2020' is no date"),
        ("file,label,timestamp", "1609113000", "column timestamp is passed over: '1609113000' is no date"),
        ("file,label,Time", "0.3", "column Time is passed over: '0.3' is no time of day"),
        ("file,label,time", "18:30", "column time is passed over: there is no column of dates"),
        ("file,label,lat", "50", "column lat is passed over: there is no longitude"),
        ("file,label,lat,lon", "5500000,690000", "column lon is passed over: '690000' is no longitude in degrees"),
    ],
)
def test_columns_that_are_something_else_are_passed_over(images: Path, caplog, header, cells, said) -> None:
    path = table(images, header, f"0.tif,a,{cells}", f"1.tif,b,{cells}")
    assert read_table(path).metadata is None
    assert any(f"{path}: {said}" in record.message for record in caplog.records)


@pytest.mark.parametrize("header", ["file,label", "file,label,split", "file,label,x,y"])
def test_tables_without_time_and_place_have_no_metadata(images: Path, header: str) -> None:
    more = ",train" * (header.count(",") - 1)
    path = table(images, header, *(f"{number}.tif,{'ab'[number % 2]}{more}" for number in range(4)))
    assert read_table(path).metadata is None
    dataset = LabelledFolderDataset(path, "0-100%", options=REFLECTANCES)
    assert dataset.read([0]).columns is None and "known of" not in dataset.remarks()


def test_metadata_go_with_the_images(images: Path) -> None:
    """Into batches, from memory as well, into the record and into the fingerprint."""
    lines = [f"{n}.tif,{'ab'[n % 2]},2020-0{n + 1}-02T1{n}:30,{50 + n},{10 - n}" for n in range(3)]
    path = table(images, "file,label,datetime,lat,lon", *lines, "3.tif,b,,,")
    dataset = LabelledFolderDataset(path, "0-100%", options=REFLECTANCES)
    order = [int(name[0]) for name in dataset.ids]
    columns = dataset.read(range(4)).columns
    assert columns is not None
    for row, number in enumerate(order):
        hour, lat = column_of(columns, "hour")[row], column_of(columns, "lat")[row]
        assert (hour, lat) == (10 + number, 50 + number) if number < 3 else np.isnan([hour, lat]).all()
    meta = dataset.batch(range(4)).meta
    assert meta is not None
    assert np.array_equal(meta.numpy(), encode_metadata(columns)) and not meta[order.index(3)].any()
    assert "; time or place known of 3 of 4" in dataset.remarks() and dataset.description()["with_metadata"] == 3
    half = LabelledFolderDataset(path, "0-50%", options=REFLECTANCES)
    assert half.remarks() == dataset.remarks(), "one line for all splits"
    before = dataset.fingerprint()
    assert dataset.hold_in_memory() and np.array_equal(dataset.gather([2]).columns, columns[2:3], equal_nan=True)
    path.write_text(path.read_text().replace("2020-01-02", "2020-01-22"))
    assert LabelledFolderDataset(path, "0-100%", options=REFLECTANCES).fingerprint() != before


def test_a_mixture_takes_them(images: Path) -> None:
    path = table(images, "file,label,datetime,lat,lon", "0.tif,a,2020-08-02T18:30,52.0,-114.5", "1.tif,b,,,")
    first = LabelledFolderDataset(path, "0-100%", options=REFLECTANCES)
    mixed = MixedDataset(first, first, 0.5)
    columns = mixed.read(range(len(mixed))).columns
    assert columns is not None and np.nansum(column_of(columns, "lat")) == 2 * 52.0


@pytest.mark.parametrize(
    ("header", "right", "wrong", "message"),
    [
        ("file,label,Date", "2020-08-02", "02/08/2020", r"line 3: column Date: '02/08/2020' is no date .*another name"),
        (
            "file,label,date,time",
            "2020-08-02,18:30",
            "2020-08-02,6 pm",
            r"line 3: column time: '6 pm' is no time of day",
        ),
        ("file,label,lat,lon", "50,10", "95,10", r"line 3: column lat: '95' is no latitude in degrees, from -90 to 90"),
        ("file,label,lat,lon", "50,10", "north,10", r"line 3: column lat: 'north' is no latitude"),
        ("file,label,lat,lon", "50,10", "50,", r"line 3: latitude and longitude belong together"),
        ("file,label,date", "2020-08-02", "9999-12-31T23:59:59-05:00", r"line 3: column date: '9999.* is no date"),
    ],
)
def test_a_cell_that_cannot_be_read_is_one_line(images: Path, header, right, wrong, message) -> None:
    with pytest.raises(DataError, match=rf"table\.csv: {message}"):
        read_table(table(images, header, f"0.tif,a,{right}", f"1.tif,b,{wrong}"))


def test_embeddings_are_conditioned_on_them(images: Path) -> None:
    """The script's vectors are those of `model.embed` with the same time and place."""
    asked = {"0": ("2020-08-02T18:30", 52.0, -114.5), "1": (None, None, None), "2": ("2020-02-02", 10, 20)}
    lines = ["0.tif,a,2020-08-02T18:30,52.0,-114.5", "1.tif,b,,,", "2.tif,a,2020-02-02,10,20"]
    path = table(images, "file,label,datetime,lat,lon", *lines)
    (images / "all.txt").write_text("".join(f"{name}.tif\n" for name in asked))
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    model = build_model("XXS", seed=0, **numbers)
    write_checkpoint(images / "tiny.pth", model, epoch=0, best_train_loss=0.0)
    data = {"dataset": "labelled_folder", "dataset_path": str(path), "splits": {"test": "all.txt"}}
    config = write_config(
        images / "config.yaml",
        model={"checkpoint_path": str(images / "tiny.pth"), "device": "cpu"},
        data={**data, "scale": REFLECTANCES.scale, "offset": REFLECTANCES.offset},
        embed={"out_dir": str(images / "out"), "name": "mine", "pool": "cls"},
    )
    assert embed(["--config_yaml", str(config)]) == 0
    with np.load(images / "out" / "mine_test.npz") as file:
        vectors = file["x_test"]
    for vector, (name, (when, lat, lon)) in zip(vectors, asked.items(), strict=True):
        with rasterio.open(images / f"{name}.tif") as file:
            expected = MOEMAE.from_pretrained(images / "tiny.pth").embed(file.read(), when=when, lat=lat, lon=lon)
        np.testing.assert_allclose(vector, expected.ravel(), rtol=1e-4, atol=1e-5)
