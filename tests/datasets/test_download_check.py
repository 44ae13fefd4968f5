"""The check of a folder: what is missing, damaged, surplus or not as published is named."""

import shutil
from pathlib import Path

import downloading
import numpy as np
import pytest
from conftest import SAMPLE
from downloading import SMALL, contents, published_files
from tiny import some_pixels, write_tif

from datasets.download.__main__ import main
from datasets.download.check import check_dataset
from datasets.download.source import BIGEARTHNET
from utils.errors import DataError

dataset, _quick = downloading.dataset, downloading.quick


@pytest.fixture
def folder(dataset, tmp_path) -> Path:
    """A finished folder, written without the hub."""
    for name, data in {**contents(dataset), **published_files(dataset)}.items():
        path = tmp_path / name
        if name != SMALL[dataset].archive:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return tmp_path


def images(dataset: str) -> list[str]:
    return [name for name in contents(dataset) if name.endswith(".tif")]


def check(dataset: str, folder: Path) -> int:
    return main([dataset, "--out", str(folder), "--check"], SMALL)


def test_missing_files_are_all_named(dataset, folder, capsys) -> None:
    gone = images(dataset)[:11]
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(DataError, match=r"11 files are not as published .missing."):
        check(dataset, folder)
    said, report = capsys.readouterr().out, (folder / "check_report.txt").read_text()
    assert "11 missing: " in said and "and 1 more" in said
    assert sum(name.partition("/")[2] in said for name in gone) == 10
    assert all(f"missing: {name.partition('/')[2]}\n" in report for name in gone)
    assert "unreadable" not in report


def test_surplus_files_are_named_and_do_no_harm(dataset, folder, capsys) -> None:
    image = folder / images(dataset)[0]
    surplus = [image.with_name("Forest_99.tif"), image.with_name("._x.tif"), folder / SMALL[dataset].top / "notes.txt"]
    for path in surplus:
        shutil.copy(image, path)
    assert check(dataset, folder) == 0
    assert "3 in no split: " in capsys.readouterr().out
    report = (folder / "check_report.txt").read_text()
    assert all(f"in no split: {path.relative_to(folder / SMALL[dataset].top)}\n" in report for path in surplus)
    for path in surplus:
        path.unlink()
    assert check(dataset, folder) == 0
    assert not (folder / "check_report.txt").exists()


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (some_pixels(shape=(3, 43, 43)), "3 bands"),
        (some_pixels(shape=(9, 43, 43)), "9 bands"),
        (some_pixels(shape=(7, 43, 43)).astype("float32"), "float32"),
        (some_pixels(shape=(7, 5, 5)), "5 x 5 pixels"),
        (None, "not a GeoTIFF"),
    ],
    ids=["few bands", "many bands", "floats", "small", "no GeoTIFF"],
)
def test_patches_of_another_form(dataset, folder, capsys, pixels, why) -> None:
    path = folder / images(dataset)[3]
    if pixels is None:
        path.write_bytes(b"not a picture")
    else:
        extra = pixels[:1] if dataset == "eurosat_ls" and len(pixels) == 7 else pixels[:0]
        write_tif(path, np.concatenate([pixels, extra]))
    with pytest.raises(DataError, match=r"1 files are not as published .unreadable."):
        check(dataset, folder)
    assert why in (folder / "check_report.txt").read_text()
    assert path.name in capsys.readouterr().out


def test_an_empty_file(dataset, folder) -> None:
    (folder / images(dataset)[3]).write_bytes(b"")
    with pytest.raises(DataError, match=r"not as published .empty"):
        check(dataset, folder)


def test_wrong_counts(dataset, folder) -> None:
    name = SMALL[dataset].splits["val"]
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(lines[1:]))
    with pytest.raises(DataError, match=f"{name} lists 3 patches where 4 are published"):
        check(dataset, folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: cannot read the split file"):
        check(dataset, folder)


def test_the_published_counts_are_checked(dataset, folder) -> None:
    with pytest.raises(DataError, match=r"lists 12 patches where (269,695|16,200) are published"):
        main([dataset, "--out", str(folder), "--check"])


def test_a_patch_in_two_splits(dataset, folder, capsys) -> None:
    train, val = (folder / SMALL[dataset].splits[split] for split in ("train", "val"))
    lines = [train.read_text().splitlines()[0], *val.read_text().splitlines()[1:]]
    val.write_text("\n".join(lines))
    assert check(dataset, folder) == 0
    assert f"1 in two splits: {Path(lines[0]).stem}" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", ["bigearthnet_ls"], indirect=True)
def test_missing_label_files(dataset, folder, capsys) -> None:
    labels = sorted((folder / "bigearthnet-l" / "labels").iterdir())
    labels[0].unlink()
    assert check(dataset, folder) == 0
    assert f"1 missing label file: labels/{labels[0].name}" in capsys.readouterr().out
    labels[1].unlink()
    with pytest.raises(DataError, match=r"2 files are not as published .missing label file."):
        check(dataset, folder)


@pytest.mark.parametrize("dataset", ["bigearthnet_ls"], indirect=True)
def test_a_label_file_that_is_none(dataset, folder) -> None:
    label = next((folder / "bigearthnet-l" / "labels").iterdir())
    label.write_text('{"labels": ["Moon"]}')
    with pytest.raises(DataError, match=r"not as published .unreadable."):
        check(dataset, folder)
    assert "unknown label 'Moon'" in (folder / "check_report.txt").read_text()


def test_the_sample_is_spread_evenly(dataset, folder) -> None:
    assert check_dataset(folder, SMALL[dataset], sample=5).read == 5
    (folder / images(dataset)[1]).write_bytes(b"damaged")
    assert not check_dataset(folder, SMALL[dataset], sample=2).problems
    assert check_dataset(folder, SMALL[dataset], sample=None).problems


def test_the_embedded_sample_is_whole() -> None:
    source = BIGEARTHNET._replace(counts={"train": 192, "val": 48, "test": 64})
    checked = check_dataset(SAMPLE, source)
    assert (checked.read, checked.problems) == (304, [])
    assert not [finding for finding in checked.notes if finding.kind == "in no split"]


def test_real_patches(real_patches, tmp_path) -> None:
    names = (real_patches / "samples.csv").read_text().split()[1:]
    for split, part in {"train": names[:100], "val": names[100:110], "test": names[110:]}.items():
        (tmp_path / f"bigearthnet-{split}.csv").write_text("\n".join(part))
    (tmp_path / "bigearthnet-l").symlink_to(real_patches)
    checked = check_dataset(tmp_path, BIGEARTHNET._replace(counts={"train": 100, "val": 10, "test": 10}))
    assert (checked.read, checked.problems) == (120, [])
    assert [finding.kind for finding in checked.notes] == ["missing label file"]
