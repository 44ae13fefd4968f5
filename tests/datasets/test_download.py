"""Datasets fetched from a hub on the loopback address: whole, interrupted, damaged; what a user can fix."""

import json
import signal
import stat
import time
from types import SimpleNamespace

import downloading
import pytest
import warm_python
from conftest import ROOT
from downloading import COUNTS, SMALL, contents, download, needs_hub, open_splits, published_files, tree
from hub_server import COMMIT, Hub

from datasets.download import archive as download_archive
from datasets.download import hub as download_hub
from datasets.download.__main__ import main
from datasets.download.transfer import WORK
from utils.errors import ConfigError, DataError, UserError
from utils.locks import held_alone

dataset, hub, _quick = downloading.dataset, downloading.hub, downloading.quick


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


@pytest.mark.faults
@pytest.mark.parametrize("dataset", ["bigearthnet_ls"], indirect=True)
def test_a_killed_transfer_goes_on_where_it_stopped(dataset, hub, tmp_path) -> None:
    archive = SMALL[dataset].archive
    hub.hang_after = 50_000
    out = tmp_path / "data"
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests/support")!r}]
import downloading as t
t.main([{dataset!r}, "--out", {str(out)!r}, "--endpoint", {hub.url!r}], t.SMALL)
"""
    process = warm_python.start(["-c", code], cwd=tmp_path)
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


# --------------------------------------------------------------------------- what a user can fix


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
    [({"f_bavail": 1}, "[Mk]B are needed to fetch and unpack, the disk has 4.1 kB"), ({"f_favail": 5}, "takes 5 more")],
)
def test_no_space(dataset, hub, tmp_path, monkeypatch, room, said) -> None:
    plenty = {"f_bavail": 10**9, "f_frsize": 4096, "f_files": 10**9, "f_favail": 10**9}
    monkeypatch.setattr("datasets.download.transfer.os.statvfs", lambda path: SimpleNamespace(**plenty | room))
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
    command = ["-m", "datasets.download", "eurosat_ls", "--out", tmp_path / "data"]
    done = warm_python.run([*command, "--endpoint", "http://127.0.0.1:9"], cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
