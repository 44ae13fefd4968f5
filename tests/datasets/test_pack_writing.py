"""Making packs: the same bytes after any interruption, bad files, and folders that hold something already."""

import errno
import json
import os
import re
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import warm_python
from conftest import ROOT
from packing import IDS, SHAPE, contents, pack, write_source
from tiny import some_pixels, write_tif

from datasets.loader import build_dataset
from datasets.pack.dataset import PackedDataset
from datasets.pack.journal import Entry, append_entry
from datasets.pack.source import PackSource
from datasets.pack.writer import _ignore_interrupt
from datasets.packed import main
from utils.errors import ConfigError, DataError, UserError


@pytest.fixture
def source(tmp_path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def small_steps(monkeypatch) -> None:
    """Chunks of two patches, entries of the journal of four."""
    monkeypatch.setattr(PackSource, "chunk", 2)
    monkeypatch.setattr(PackSource, "entry", 4)


# --------------------------------------------------------------------------- interruptions


def interrupted(monkeypatch, after: int, *arguments, **options) -> None:
    """A pack command that is interrupted after so many chunks."""
    read_chunk, read = PackSource.read_chunk, []

    def reading(self, ids):
        if len(read) == after:
            raise KeyboardInterrupt
        read.append(ids)
        return read_chunk(self, ids)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PackSource, "read_chunk", reading)
        pack(*arguments, **options)


@pytest.mark.parametrize("after", range(5))
def test_resumed_packs_have_the_same_bytes(source, tmp_path, monkeypatch, small_steps, capsys, after: int) -> None:
    whole = contents(pack(tmp_path / "whole", source))
    out = tmp_path / "pack"
    interrupted(monkeypatch, after, out, source)
    assert "run the same command again" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"pack: is an unfinished pack.*same command again"):
        build_dataset("bigearthnet_ls", str(out), str(source / "split.csv"), image_size=40)
    # A kill leaves more: rows without an entry, and half a line of the journal.
    for name in ("pixels.npy", "patches.csv"):
        with (out / name).open("ab") as file:
            file.write(b"\x00torn")
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"asked": 10, "pat')
    assert contents(pack(out, source)) == whole


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_goes_on(source, tmp_path, number: int) -> None:
    whole = contents(pack(tmp_path / "whole", source))
    out = tmp_path / "pack"
    command = ["--dataset", "bigearthnet_ls", "--dataset_path", str(source), "--dataset_csv", "split.csv"]
    script = (
        "import sys, time\n"
        "from datasets.pack.source import PackSource\n"
        "from datasets.packed import main\n"
        "from utils.errors import run_script\n"
        "PackSource.chunk, PackSource.entry, read = 1, 1, PackSource.read_chunk\n"
        "PackSource.read_chunk = lambda self, ids: (time.sleep(0.2), read(self, ids))[1]\n"
        "run_script(lambda: main(sys.argv[1:]))\n"
    )
    process = warm_python.start(["-c", script, *command, "--out", out, "--num_workers", "1"], cwd=ROOT)
    journal = out / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    assert not (out / "pack.json").exists()
    lines = journal.read_bytes().count(b"\n")
    assert 4 <= lines < 11
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackSource, "chunk", 1)
        patch.setattr(PackSource, "entry", 1)
        resumed = contents(pack(out, source))
        whole_in_ones = contents(pack(tmp_path / "ones", source))
    assert resumed == whole_in_ones
    assert all(resumed[name] == whole[name] for name in ("pixels.npy", "patches.csv"))


def test_with_processes_the_same_bytes(source, tmp_path, small_steps) -> None:
    alone, others = pack(tmp_path / "a", source), pack(tmp_path / "b", source, ["split.csv"], "--num_workers", "2")
    assert contents(alone) == contents(others)


def test_a_killed_reader_is_one_line(source, tmp_path, monkeypatch, small_steps) -> None:
    monkeypatch.setattr(PackSource, "read_chunk", lambda self, ids: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=r"a reader process was killed .*fewer --num_workers"):
        pack(tmp_path / "pack", source, ["split.csv"], "--num_workers", "1")
    monkeypatch.undo()
    assert (pack(tmp_path / "pack", source) / "pack.json").exists()


def test_a_full_disk_is_named_before_and_during_the_work(source, tmp_path, monkeypatch) -> None:
    out = tmp_path / "pack"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"pack: the pack needs \d+\.\d kB more than the disk has; write elsewhere"):
            pack(out, source)

    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        patch.setattr("datasets.pack.journal.write_text", lambda path, text: path.write_text(text))
        patch.setattr("datasets.pack.writer.check_writable", lambda out: out.mkdir(exist_ok=True))
        with pytest.raises(UserError, match=r"pack: no space left on the device.*the same command goes on from here"):
            pack(out, source)
    assert (pack(out, source) / "pack.json").exists()


def test_a_stale_partial_is_refused(source, tmp_path, monkeypatch, small_steps) -> None:
    out = tmp_path / "pack"
    interrupted(monkeypatch, 4, out, source)
    with pytest.raises(DataError, match="pack: was begun with crop center, not resize; choose another --out"):
        pack(out, source, ["split.csv"], "--crop", "resize")
    (source / "few.csv").write_text("\n".join(IDS[:9]))
    with pytest.raises(DataError, match="pack: was begun of other patches than these split files list"):
        pack(out, source, ["few.csv"])
    image = source / "images" / f"{IDS[5]}.tif"
    data = image.read_bytes()
    image.write_bytes(data[:-2] + b"\x01\x02")  # of the same size
    with pytest.raises(DataError, match=rf"was begun with files that have changed since .*{IDS[5]}.*remove it"):
        pack(out, source)
    image.write_bytes(data)  # another time of change, but the same bytes
    assert contents(pack(out, source)).keys() >= {"pack.json", "pixels.npy"}


def test_a_partial_that_lost_data_is_refused(source, tmp_path, monkeypatch, small_steps) -> None:
    out = tmp_path / "pack"
    interrupted(monkeypatch, 4, out, source)
    os.truncate(out / "pixels.npy", 1000)
    with pytest.raises(DataError, match=r"pixels\.npy: holds less than journal.jsonl says; remove"):
        pack(out, source)
    (out / "journal.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match=r"journal\.jsonl: is damaged"):
        pack(out, source)


# --------------------------------------------------------------------------- a finished pack


def test_again_does_nothing_unless_the_source_changed(source, tmp_path, capsys) -> None:
    out = pack(tmp_path / "pack", source)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    pack(out, source)
    assert "finished and current, nothing to do" in capsys.readouterr().out
    label = source / "labels" / f"{IDS[0]}_labels_metadata.json"
    label.write_bytes(label.read_bytes())
    pack(out, source)
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main(["--check", str(out), "--dataset_path", str(source)]) == 0
    assert "whole; 10 patches" in capsys.readouterr().out
    label.write_text('{"labels": ["Airports"]}')
    with pytest.raises(DataError, match=rf"1 patches in .* have changed since they were packed \({IDS[0]}\)"):
        pack(out, source)
    with pytest.raises(DataError, match=rf"1 of 10 patches have changed in .*{IDS[0]}"):
        main(["--check", str(out), "--dataset_path", str(source)])
    assert main(["--check", str(out)]) == 0


def test_other_folders_are_not_touched(source, tmp_path) -> None:
    out = pack(tmp_path / "pack", source)
    (source / "few.csv").write_text("\n".join(IDS[:9]))
    with pytest.raises(DataError, match="pack: is a pack of other patches than these split files list"):
        pack(out, source, ["few.csv"])
    with pytest.raises(DataError, match="pack: is a pack with image_size 40, not 32"):
        pack(out, source, ["split.csv"], "--image_size", "32")
    with pytest.raises(DataError, match="is not empty and holds no pack"):
        pack(source, source)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file: is a file"):
        pack(tmp_path / "file", source)
    (source / "patches.csv").write_text(IDS[0])
    with pytest.raises(DataError, match=r"patches\.csv: a pack has a file patches\.csv of its own"):
        pack(tmp_path / "other", source, ["patches.csv"])
    with pytest.raises(ConfigError, match="--dataset_csv is required"):
        main(["--dataset", "bigearthnet_ls", "--dataset_path", str(source)])


def test_splits_have_names_of_their_own(source, tmp_path) -> None:
    (source / "more").mkdir()
    (source / "more" / "split.csv").write_text(f"{IDS[0]}\n")
    with pytest.raises(DataError, match=r"more/split\.csv: has the same name as .*/split\.csv; rename one of them"):
        pack(tmp_path / "pack", source, ["split.csv", str(source / "more" / "split.csv")])
    assert (pack(tmp_path / "pack", source, ["split.csv", "split.csv"]) / "pack.json").exists(), "twice the same one"


def test_a_source_that_has_lost_a_file(source, tmp_path) -> None:
    out = pack(tmp_path / "pack", source)
    (source / "images" / f"{IDS[4]}.tif").unlink()
    with pytest.raises(DataError, match=rf"1 patches in .* have changed since they were packed \({IDS[4]}\)"):
        pack(out, source)


def test_a_pack_begun_by_another_version(source, tmp_path, monkeypatch, small_steps) -> None:
    out = tmp_path / "pack"
    interrupted(monkeypatch, 3, out, source)
    journal = out / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    first = {key: value for key, value in json.loads(lines[0]).items() if key != "crc32"}
    journal.write_text("".join([json.dumps({**first, "format": 0}) + "\n", *lines[1:]]))
    with pytest.raises(DataError, match="pack: was begun by another version of this code; choose another --out"):
        pack(out, source)


def test_errors_of_this_code_keep_their_traceback(source, tmp_path, monkeypatch) -> None:
    def defect(self, ids):
        raise RuntimeError("a defect")

    monkeypatch.setattr(PackSource, "read_chunk", defect)
    with pytest.raises(RuntimeError, match="a defect"):
        pack(tmp_path / "pack", source)


def test_readers_leave_interrupts_to_the_main_process() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        _ignore_interrupt(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_at_once_are_refused(source, tmp_path, monkeypatch) -> None:
    out = tmp_path / "pack"
    read_chunk = PackSource.read_chunk

    def reading(self, ids):
        with pytest.raises(UserError, match="another process is packing into it"):
            pack(out, source)
        return read_chunk(self, ids)

    monkeypatch.setattr(PackSource, "read_chunk", reading)
    pack(out, source)


# --------------------------------------------------------------------------- bad files


def spoil(source: Path) -> list[str]:
    """Five bad patches, each in its own way; returns a piece of each one's reason."""
    images = source / "images"
    (images / f"{IDS[0]}.tif").unlink()
    (images / f"{IDS[3]}.tif").write_bytes((images / f"{IDS[3]}.tif").read_bytes()[:9000])
    write_tif(images / f"{IDS[5]}.tif", some_pixels(shape=(6, 43, 43)))
    (source / "labels" / f"{IDS[6]}_labels_metadata.json").write_text("{")
    write_tif(images / f"{IDS[9]}.tif", some_pixels(), crs=None)
    (source / "split.csv").write_text("\n".join([*IDS, "header"]))
    reasons = ["no such file", "truncated or not", "has 6 bands", "not a label file", "no usable", "'header'"]
    return [f"{name}.*{why}" for name, why in zip([*(IDS[i] for i in (0, 3, 5, 6, 9)), ""], reasons, strict=True)]


def test_all_bad_files_are_listed_and_mending_them_goes_on(source, tmp_path, small_steps) -> None:
    good = contents(source / "images") | contents(source / "labels")
    whole = contents(pack(tmp_path / "whole", source))
    reasons = spoil(source)
    out = tmp_path / "pack"
    with pytest.raises(DataError, match=f"6 of 11 files cannot be used: .*{IDS[0]}.*3 more.*--skip-bad") as caught:
        pack(out, source)
    assert "\n" not in str(caught.value)
    lines = (out / "bad_files.txt").read_text().splitlines()
    assert len(lines) == 6
    for line, reason in zip(lines, reasons, strict=True):
        assert re.search(reason, line)
    with pytest.raises(DataError, match="unfinished pack"):
        PackedDataset(out, str(source / "split.csv"), dataset="bigearthnet_ls")
    shutil.rmtree(out)
    (source / "split.csv").write_text("".join(f"{name}\n" for name in IDS))
    with pytest.raises(DataError, match="5 of 10 files"):
        pack(out, source)
    for name, data in good.items():
        (source / ("labels" if name.endswith("json") else "images") / name).write_bytes(data)
    mended = contents(pack(out, source))
    for name in ("pixels.npy", "patches.csv", "split.csv"):
        assert mended[name] == whole[name]
    assert "bad_files.txt" not in mended


@pytest.mark.parametrize("stopped_first", [False, True])
def test_bad_files_left_out(source, tmp_path, small_steps, capsys, stopped_first: bool) -> None:
    spoil(source)
    out = tmp_path / "pack"
    if stopped_first:
        with pytest.raises(DataError):
            pack(out, source)
    pack(out, source, ["split.csv"], "--skip-bad")
    assert "5 patches of bigearthnet_ls, 6 left out" in capsys.readouterr().out
    assert len((out / "bad_files.txt").read_text().splitlines()) == 6
    kept = [IDS[i] for i in (1, 2, 4, 7, 8)]
    dataset = PackedDataset(out, "split.csv", dataset="bigearthnet_ls")
    assert dataset.ids == kept
    assert np.array_equal(dataset.read([2]).pixels[0], some_pixels(4, SHAPE)[:, 1:41, 2:42])
    with pytest.raises(DataError, match=r"6 of 11 patches are not in the pack .*\(6 of them were left out as bad\)"):
        PackedDataset(out, source / "split.csv", dataset="bigearthnet_ls")
    pack(out, source, ["split.csv"], "--skip-bad")
    assert "nothing to do" in capsys.readouterr().out
    (source / "labels" / f"{IDS[6]}_labels_metadata.json").write_text('{"labels": []}')
    with pytest.raises(DataError, match=rf"have changed since they were packed \({IDS[6]}\)"):
        pack(out, source, ["split.csv"], "--skip-bad")


def test_files_that_were_mended_are_not_left_out(source, tmp_path, small_steps) -> None:
    """Of an unfinished pack, also where files that are bad still may be left out."""
    whole = contents(pack(tmp_path / "whole", source))
    image = source / "images" / f"{IDS[3]}.tif"
    good = image.read_bytes()
    image.write_bytes(good[:300])
    with pytest.raises(DataError, match="1 of 10 files"):
        pack(tmp_path / "pack", source)
    image.write_bytes(good)
    mended = contents(pack(tmp_path / "pack", source, ["split.csv"], "--skip-bad"))
    assert mended["patches.csv"] == whole["patches.csv"] and "bad_files.txt" not in mended


def test_an_entry_is_on_the_disk_after_the_files_it_speaks_of(tmp_path, monkeypatch) -> None:
    """At each call that puts a file on the disk, all that was written to it is the system's."""
    real, synced = os.fsync, []

    def noting(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().name, os.fstat(descriptor).st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    with ExitStack() as stack:
        journal, pixels, table = (stack.enter_context((tmp_path / name).open("ab")) for name in ("j", "p", "t"))
        pixels.write(b"123")
        table.write(b"12345")
        append_entry(journal, Entry(1, 1, 5, "", []), pixels, table)
        assert synced == [("p", 3), ("t", 5), ("j", (tmp_path / "j").stat().st_size)] and synced[2][1] > 50


def test_a_label_file_that_cannot_be_read(source, tmp_path) -> None:
    """Which is not one that is not there."""
    label = source / "labels" / f"{IDS[7]}_labels_metadata.json"
    label.unlink()
    label.mkdir()
    with pytest.raises(DataError, match=rf"1 of 10 files cannot be used: .*{label.name}: cannot be read \(Is a dir"):
        pack(tmp_path / "pack", source)


def test_eurosat_entries_without_a_file(tmp_path) -> None:
    root = tmp_path / "e"
    write_tif(root / "Forest" / "Forest_1.tif", some_pixels(shape=(8, 22, 22)))
    write_tif(root / "Moon" / "Moon_1.tif", some_pixels(shape=(8, 22, 22)))
    (root / "split.csv").write_text("Forest_1.jpg\nForest_2.jpg\nMoon_1.jpg\n")
    with pytest.raises(DataError, match=r"2 of 3 files cannot be used: .*Forest_2.*no such file.*'Moon' is none of"):
        pack(tmp_path / "pack", root, dataset="eurosat_ls")
    folder = pack(tmp_path / "pack", root, ["split.csv"], "--skip-bad", dataset="eurosat_ls")
    dataset = PackedDataset(folder, "split.csv", dataset="eurosat_ls")
    assert (dataset.ids, dataset.labels.tolist(), dataset[0].meta) == (["Forest_1"], [1], None)
    (root / "none.csv").write_text("Forest_3.jpg\n")
    with pytest.raises(DataError, match="1 of 1 files cannot be used"):
        pack(tmp_path / "empty", root, ["none.csv"], "--skip-bad", dataset="eurosat_ls")


def test_an_entry_of_the_journal_is_made_of_whole_chunks() -> None:
    """Or a run that goes on would begin within one, and give readers other patches at a time."""
    assert PackSource.entry % PackSource.chunk == 0
