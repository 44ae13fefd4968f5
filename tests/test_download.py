"""Datasets fetched from a hub on the loopback address: whole, interrupted, damaged, hostile, incomplete."""

import gzip
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, SAMPLE
from hub_server import COMMIT, Hub, serving
from packing import EUROSAT as EUROSAT_SAMPLE
from tiny import some_pixels, write_tif

from datasets import download_archive, download_hub
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.download import WORK, main
from datasets.download_archive import DamagedArchive, unpack
from datasets.download_check import check_dataset
from datasets.download_source import BIGEARTHNET, EUROSAT, Published
from datasets.eurosat import EuroSATDatasetLS
from utils.errors import ConfigError, DataError, UserError
from utils.locks import held_alone

needs_hub = pytest.mark.skipif(not download_hub.importlib.util.find_spec("huggingface_hub"),
                               reason="the optional package huggingface_hub is not installed")  # fmt: skip

COUNTS = {"train": 12, "val": 4, "test": 4}
SMALL = {
    "bigearthnet_ls": BIGEARTHNET._replace(counts=COUNTS),
    "eurosat_ls": EUROSAT._replace(counts=COUNTS),
}


def split_lines(dataset: str) -> dict[str, list[str]]:
    """The first patches of the embedded sample's splits."""
    folder = SAMPLE if dataset == "bigearthnet_ls" else EUROSAT_SAMPLE
    return {name: (folder / name).read_text().split()[: COUNTS[split]] for split, name in SMALL[dataset].splits.items()}


def contents(dataset: str) -> dict[str, bytes]:
    """Path in the archive to bytes."""
    names = [Path(line).stem for lines in split_lines(dataset).values() for line in lines]
    if dataset == "eurosat_ls":
        paths = [EUROSAT_SAMPLE / "eurosat-l" / name.rpartition("_")[0] / f"{name}.tif" for name in names]
        return {path.relative_to(EUROSAT_SAMPLE).as_posix(): path.read_bytes() for path in paths}
    paths = [SAMPLE / "images" / f"{name}.tif" for name in names]
    paths += [SAMPLE / "labels" / f"{name}_labels_metadata.json" for name in names]
    return {f"bigearthnet-l/{path.relative_to(SAMPLE)}": path.read_bytes() for path in paths}


def tar_of(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o4777
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return raw.getvalue()


def zip_of(files: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0) << 16
            archive.writestr(info, data)
    return raw.getvalue()


def published_files(dataset: str, files: dict[str, bytes] | None = None) -> dict[str, bytes]:
    pack = zip_of if dataset == "eurosat_ls" else tar_of
    files = contents(dataset) if files is None else files
    splits = {name: "".join(f"{line}\n" for line in lines).encode() for name, lines in split_lines(dataset).items()}
    return {**splits, SMALL[dataset].archive: pack(files)}


@pytest.fixture(params=["bigearthnet_ls", "eurosat_ls"])
def dataset(request) -> str:
    return request.param


@pytest.fixture
def hub(dataset) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the optional package huggingface_hub is not installed")
    with serving(Hub(SMALL[dataset].repo, published_files(dataset))) as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(download_hub, "RETRY_WAIT", 0.01)
    monkeypatch.setattr("datasets.download.os.sync", lambda: None)  # waits for whatever else the machine writes


def download(hub: Hub | str, out: Path, *options: str, published: dict[str, Published] = SMALL) -> int:
    name = next(name for name, source in SMALL.items() if isinstance(hub, str) or source.repo == hub.repo)
    url = hub if isinstance(hub, str) else hub.url
    return main([name, "--out", str(out), "--endpoint", url, *options], published)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_splits(dataset: str, out: Path) -> list:
    kind, options = (EuroSATDatasetLS, {}) if dataset == "eurosat_ls" else (BigEarthNetDatasetLS, {"labels": "error"})
    return [kind(out, name, **options) for name in SMALL[dataset].splits.values()]


# --------------------------------------------------------------------------- a good day


def test_what_is_published_arrives_and_nothing_else(dataset, hub, tmp_path, capsys) -> None:
    source = SMALL[dataset]
    assert download(hub, tmp_path) == 0
    there = tree(tmp_path)
    assert {name: data for name, data in there.items() if name.startswith(source.top)} == contents(dataset)
    assert there.keys() == contents(dataset).keys() | set(source.splits.values()) | {"download.json"}
    assert "20 patches (train 12, val 4, test 4), 20 read whole" in capsys.readouterr().out
    record = json.loads(there["download.json"])
    assert record["repo"] == source.repo
    assert {entry["commit"] for entry in record["files"].values()} == {COMMIT}
    for found, count in zip(open_splits(dataset, tmp_path), COUNTS.values(), strict=True):
        assert len(found) == count
        assert found.batch([0, 1]).images.shape == (2, 7, 40, 40)


def test_modes_of_the_archive_do_not_reach_the_disk(dataset, hub, tmp_path) -> None:
    download(hub, tmp_path)
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o7111 for path in tmp_path.rglob("*") if path.is_file())


def test_a_finished_folder_needs_no_network(dataset, hub, tmp_path, capsys) -> None:
    download(hub, tmp_path, "--keep-archive")
    assert (tmp_path / SMALL[dataset].archive).read_bytes() == hub.files[SMALL[dataset].archive]
    before, asked = tree(tmp_path), len(hub.requests)
    assert download(hub, tmp_path) == 0
    assert main([dataset, "--out", str(tmp_path), "--check", "--sample", "all"], SMALL) == 0
    assert tree(tmp_path) == before
    assert len(hub.requests) == asked


def test_an_archive_that_lies_there_is_used(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    (tmp_path / archive).write_bytes(hub.files[archive])
    assert download(hub, tmp_path) == 0
    assert archive not in {name for _, name, _ in hub.requests}
    assert len(open_splits(dataset, tmp_path)) == 3
    assert (tmp_path / archive).exists()


def test_a_folder_without_its_split_files_gets_them(dataset, hub, tmp_path) -> None:
    download(hub, tmp_path)
    for name in SMALL[dataset].splits.values():
        (tmp_path / name).unlink()
    hub.requests.clear()
    assert download(hub, tmp_path) == 0
    assert SMALL[dataset].archive not in {name for _, name, _ in hub.requests}
    assert len(open_splits(dataset, tmp_path)) == 3


# --------------------------------------------------------------------------- interruptions


def test_a_broken_connection_goes_on_where_it_stopped(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    hub.cut_after = [30_000, 1, 0, 20_000]
    assert download(hub, tmp_path) == 0
    assert hub.sent[archive] == len(hub.files[archive])
    starts = [start for method, name, start in hub.requests if (method, name) == ("GET", archive)]
    assert sorted(set(starts)) == [0, 30_000, 30_001, 50_001]


def test_a_transfer_that_keeps_breaking_says_how_far_it_came(dataset, hub, tmp_path) -> None:
    hub.cut_after = [30_000] + [0] * 20
    with pytest.raises(UserError, match=r"0\.0 of 0\.\d MB are there, run the same command again to go on"):
        download(hub, tmp_path)
    hub.cut_after = []
    assert download(hub, tmp_path) == 0
    assert hub.sent[SMALL[dataset].archive] == len(hub.files[SMALL[dataset].archive])


@pytest.mark.parametrize("dataset", ["bigearthnet_ls"], indirect=True)
def test_a_killed_transfer_goes_on_where_it_stopped(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    hub.hang_after = 50_000
    out = tmp_path / "data"
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import test_download as t
t.main([{dataset!r}, "--out", {str(out)!r}, "--endpoint", {hub.url!r}], t.SMALL)
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        part = out / WORK / f"{archive}.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == 50_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.silent.set()
    assert not (out / SMALL[dataset].top).exists()
    hub.hang_after = None
    assert download(hub, out) == 0
    assert hub.sent[archive] == len(hub.files[archive])


def test_a_server_without_ranges_is_read_from_the_start(dataset, hub, tmp_path) -> None:
    hub.cut_after, hub.ignore_range = [30_000], True
    assert download(hub, tmp_path) == 0
    assert tree(tmp_path / SMALL[dataset].top).keys() == {name.partition("/")[2] for name in contents(dataset)}


def test_a_new_revision_begins_anew(dataset, hub, tmp_path) -> None:
    hub.cut_after = [30_000] + [0] * 20
    with pytest.raises(UserError):
        download(hub, tmp_path)
    hub.cut_after, hub.commit = [], "f" * 40
    files = dict(reversed(contents(dataset).items()))
    hub.files = published_files(dataset, files)
    assert download(hub, tmp_path) == 0
    assert {entry["commit"] for entry in json.loads((tmp_path / "download.json").read_text())["files"].values()} == {
        "f" * 40
    }


def interrupted_after(count: int, monkeypatch) -> None:
    """Unpacking is broken off in the middle of a file."""
    place, placed = download_archive._place, []

    def breaking(member, target) -> None:
        placed.append(target)
        if len(placed) > count:
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        place(member, target)

    monkeypatch.setattr(download_archive, "_place", breaking)


def test_interrupted_unpacking_goes_on_without_a_network(dataset, hub, tmp_path, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(7, patch)
        download(hub, tmp_path)
    assert "unfinished; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / SMALL[dataset].top).exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / WORK).rglob("*.tif")}
    assert len(kept) >= 7
    hub.status = 503
    assert download(hub, tmp_path) == 0
    assert tree(tmp_path / SMALL[dataset].top) == {
        name.partition("/")[2]: data for name, data in contents(dataset).items()
    }
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / SMALL[dataset].top).rglob("*.tif")}
    assert sum(again[path.name] == time for path, time in kept.items()) == 7
    assert not (tmp_path / WORK).exists()


def test_two_downloads_into_one_folder(dataset, hub, tmp_path) -> None:
    with held_alone(tmp_path, "at work in it"), pytest.raises(UserError, match="another process"):
        download(hub, tmp_path)


# --------------------------------------------------------------------------- damage


def test_bytes_with_another_checksum_are_thrown_away(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    good = hub.files[archive]
    etag = hub.etag(archive)
    hub.files[archive] = good[:9000] + bytes([good[9000] ^ 1]) + good[9001:]
    hub.etag = lambda name: etag if name == archive else Hub.etag(hub, name)
    with pytest.raises(DataError, match="another checksum than the hub lists; removed"):
        download(hub, tmp_path)
    assert not (tmp_path / SMALL[dataset].top).exists()
    hub.files[archive] = good
    assert download(hub, tmp_path) == 0


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_archive_without_a_checksum(dataset, hub, tmp_path, damage) -> None:
    archive, hub.plain_etags = SMALL[dataset].archive, True
    good = hub.files[archive]
    half = len(good) // 2
    hub.files[archive] = good[:half] if damage == "cut" else good[:half] + bytes([good[half] ^ 255]) + good[half + 1 :]
    with pytest.raises(DataError, match=f"{archive}: is damaged .*; removed, run the same command again"):
        download(hub, tmp_path)
    assert not (tmp_path / SMALL[dataset].top).exists()
    hub.files[archive] = good
    assert download(hub, tmp_path) == 0


def test_an_archive_published_damaged(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    hub.files[archive] = hub.files[archive][:-20_000]
    with pytest.raises(
        DataError,
        match=r"is damaged .*, though it is as published: tell the authors of isaaccorley/.*remove .*download",
    ):
        download(hub, tmp_path)
    assert not (tmp_path / SMALL[dataset].top).exists()


def test_a_gzip_checksum_after_the_last_member_counts(tmp_path) -> None:
    data = bytearray(tar_of({"a/b.tif": b"1"}))
    data[-8] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "a.tar.gz", tmp_path / "a", "a")


# --------------------------------------------------------------------------- archives that mean harm


def linked(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


OUTSIDE = ["../evil", "/tmp/moemae-evil", "top/../../evil", "top/a/../../../evil", "C:/evil", "top\\..\\evil", ".."]


def is_refused(archive: Path, folder: Path, name: str) -> None:
    before = set(folder.rglob("*"))
    with pytest.raises(DataError) as caught:
        unpack(archive, folder / "inner" / "out", "top")
    assert repr(name) in str(caught.value)
    assert not isinstance(caught.value, DamagedArchive)
    made = set(folder.rglob("*")) - before
    assert all(path.is_relative_to(folder / "inner") and "evil" not in path.name for path in made)
    assert not any(path.is_symlink() for path in made)
    assert not Path("/tmp/moemae-evil").exists()


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_members_that_lead_out_of_the_folder(tmp_path, name, kind) -> None:
    pack = zip_of if kind == "zip" else tar_of
    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(pack({"top/good.tif": b"1", name: b"evil"}))
    is_refused(archive, tmp_path, name)


@pytest.mark.parametrize(
    "info",
    [
        linked("top/evil", "/etc/passwd", tarfile.SYMTYPE),
        linked("top/evil", "good.tif", tarfile.SYMTYPE),
        linked("top/evil", "top/good.tif", tarfile.LNKTYPE),
        linked("top/evil", "", tarfile.CHRTYPE),
        linked("top/evil", "", tarfile.BLKTYPE),
        linked("top/evil", "", tarfile.FIFOTYPE),
        linked("../evil", "", tarfile.DIRTYPE),
    ],
    ids=["link out", "link inside", "hard link", "character device", "block device", "pipe", "folder outside"],
)
def test_tar_members_that_are_no_plain_files(tmp_path, info) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"top/good.tif": b"1"}, info))
    is_refused(tmp_path / "a.tar.gz", tmp_path, info.name)


def test_a_zip_with_a_link(tmp_path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"top/evil": b"/etc/passwd"}, {"top/evil": stat.S_IFLNK | 0o777}))
    is_refused(tmp_path / "a.zip", tmp_path, "top/evil")


def test_a_file_too_large_for_a_patch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download_archive, "MOST_BYTES", 1000)
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"top/evil": bytes(1001)}))
    is_refused(tmp_path / "a.tar.gz", tmp_path, "top/evil")


@needs_hub
def test_a_hostile_archive_stops_the_download(tmp_path) -> None:
    files = published_files("bigearthnet_ls", {**contents("bigearthnet_ls"), "../../evil": b"evil"})
    with serving(Hub(BIGEARTHNET.repo, files)) as hub, pytest.raises(DataError, match="leads out of the folder"):
        download(hub, tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b" / "bigearthnet-l").exists()
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_without_its_top_folder(tmp_path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"./images/x.tif": b"1", "top/images/y.tif": b"2"}))
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "out", "top") == 2
    assert tree(tmp_path / "out") == {"images/x.tif": b"1", "images/y.tif": b"2"}


# --------------------------------------------------------------------------- what is there


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


# --------------------------------------------------------------------------- what a user can mend


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "is not there; check --revision and --endpoint"), (401, "log in with `hf auth login`"), (403, "hf auth"),
     (429, "fewer requests"), (503, "the server is in trouble")],
)  # fmt: skip
def test_a_server_that_refuses(dataset, hub, tmp_path, status, said) -> None:
    hub.status = status
    with pytest.raises(UserError, match=f"{SMALL[dataset].repo}/.*{said}") as caught:
        download(hub, tmp_path)
    assert f"HTTP {status}" in str(caught.value)


@needs_hub
def test_no_network(tmp_path) -> None:
    with pytest.raises(UserError, match=r"bigearthnet-train\.csv: the server cannot be reached"):
        download("http://127.0.0.1:9", tmp_path)
    with pytest.raises(ConfigError, match="expected a URL"):
        download("huggingface.co", tmp_path)


def test_a_server_that_is_no_hub(dataset, hub, tmp_path) -> None:
    hub.no_commit = True
    with pytest.raises(UserError, match="as the hub does; check --endpoint"):
        download(hub, tmp_path)


@pytest.mark.parametrize(
    ("room", "said"),
    [({"f_bavail": 1}, "GB are needed to fetch and unpack, the disk has 0.0"), ({"f_favail": 5}, "takes 5 more")],
)
def test_no_space(dataset, hub, tmp_path, monkeypatch, room, said) -> None:
    plenty = {"f_bavail": 10**9, "f_frsize": 4096, "f_files": 10**9, "f_favail": 10**9}
    monkeypatch.setattr("datasets.download.os.statvfs", lambda path: SimpleNamespace(**plenty | room))
    with pytest.raises(UserError, match=said):
        download(hub, tmp_path)
    assert not [name for method, name, _ in hub.requests if method == "GET"]


def test_without_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download_hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'huggingface_hub"):
        download("http://127.0.0.1:9", tmp_path)


def test_bad_arguments(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file; --out needs a folder"):
        main(["eurosat_ls", "--out", str(tmp_path / "file")])
    with pytest.raises(DataError, match="no such folder"):
        main(["eurosat_ls", "--out", str(tmp_path / "nowhere"), "--check"])
    for arguments in (["landsat", "--out", "x"], ["eurosat_ls"], ["eurosat_ls", "--out", "x", "--sample", "some"]):
        with pytest.raises(ConfigError):
            main(arguments)


@needs_hub
def test_the_command_ends_in_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "datasets.download", "eurosat_ls", "--out", str(tmp_path / "data")]
    done = subprocess.run([*command, "--endpoint", "http://127.0.0.1:9"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_gzip_is_not_trusted_beyond_its_end(tmp_path) -> None:
    """A second gzip stream after the first belongs to the archive, as gzip says; its damage counts."""
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"a/b.tif": b"1"}) + gzip.compress(b"x" * 99)[:-9])
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "a.tar.gz", tmp_path / "a", "a")
