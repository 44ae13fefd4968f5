"""Packs with flipped bits, cut off, or finished after a kill: refused, or the very patches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE
from faults import REFUSED, USED, Attempt, damaged, ending
from file_calls import KILLED, SAVED, Fault, faults_of, forked
from packing import contents, pack, write_source

from datasets.pack import format as pack_format
from datasets.pack.dataset import PackedDataset
from datasets.pack.format import CHECKSUMS, HEADER, JOURNAL, PIXELS, TABLE, verify_checksums
from datasets.pack.source import PackSource
from utils.errors import DataError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, source) -> Path:
    return pack(tmp_path_factory.mktemp("packs") / "whole", source)


@pytest.fixture(autouse=True)
def _nothing_compared(monkeypatch) -> None:
    monkeypatch.setattr(pack_format, "_unchanged", set())


def opened(folder: Path) -> PackedDataset:
    return PackedDataset(folder, "split.csv", dataset="bigearthnet_ls", labels="skip")


def read(folder: Path) -> list[np.ndarray | list[str]]:
    dataset = opened(folder)
    batch = dataset.read(range(len(dataset)))
    assert dataset.labels is not None and batch.columns is not None
    return [dataset.ids, batch.pixels, dataset.labels.numpy(), np.nan_to_num(batch.columns), dataset.fill]


def same(ours: list, theirs: list) -> bool:
    return ours[0] == theirs[0] and all(np.array_equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("name", [HEADER, PIXELS, TABLE, CHECKSUMS, "split.csv"])
def test_damaged_packs(campaign, whole, tmp_path, name) -> None:
    folder = shutil.copytree(whole, tmp_path / "pack")
    expected, data = read(folder), (folder / name).read_bytes()

    def one(attempt: Attempt) -> str:
        spoilt = damaged(data, attempt.random)
        attempt.keep(spoilt, name)
        (folder / name).write_bytes(spoilt)
        pack_format._unchanged.clear()  # the next try's file may have the same size and time

        def work() -> None:
            assert same(read(folder), expected), "other patches in silence"

        return ending(work)

    found = campaign(f"damage of a pack's {name}", 60, 2000).run(one)
    assert found[REFUSED] > 0.5 * found.total()


def test_a_damaged_patch_is_named_and_no_other_is_refused(whole, tmp_path) -> None:
    folder = shutil.copytree(whole, tmp_path / "pack")
    data = bytearray((folder / PIXELS).read_bytes())
    data[-5] ^= 4
    (folder / PIXELS).write_bytes(data)
    dataset = opened(folder)
    last = len(dataset) - 1
    for _ in range(2):
        dataset.read([0, 1, 2])
        with pytest.raises(DataError, match=rf"pixels\.npy: patch {dataset.ids[last]} changed since it was packed"):
            dataset.read([1, last])


def test_each_patch_is_compared_once(whole, monkeypatch) -> None:
    dataset, seen = opened(whole), []
    real = dataset._checksums
    assert real is not None

    class Counting:
        def __getitem__(self, row: int) -> int:
            seen.append(int(row))
            return real[row]

    monkeypatch.setattr(dataset, "_checksums", Counting())
    for indices in ([0, 1], [1, 2], [0, 1, 2]):
        dataset.read(indices)
    assert len(seen) == 3


def test_files_are_compared_once(whole, monkeypatch) -> None:
    seen, real = [], pack_format.sha256
    monkeypatch.setattr(pack_format, "sha256", lambda path: (seen.append(path.name), real(path))[1])
    for _ in range(2):
        opened(whole)
    assert sorted(seen) == sorted([CHECKSUMS, TABLE, "split.csv"])


def test_packs_of_before(whole, source, tmp_path) -> None:
    """Without checksums of patches, finished and begun."""
    old = shutil.copytree(whole, tmp_path / "old")
    header = pack_format.read_header(old)
    del header.files[CHECKSUMS]
    (old / CHECKSUMS).unlink()
    (old / HEADER).write_text(header.model_dump_json())
    assert same(read(old), read(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackSource, "chunk", 2)
        patch.setattr(PackSource, "entry", 4)
        ones = pack(tmp_path / "ones", source)
        begun = unfinished(tmp_path / "begun", source)
        (begun / CHECKSUMS).unlink()
        lines = (begun / JOURNAL).read_text().splitlines()
        (begun / JOURNAL).write_text("".join(line.partition(', "crc32"')[0] + "}\n" for line in lines))
        assert contents(pack(begun, source)) == contents(ones)


def unfinished(folder: Path, source: Path) -> Path:
    """A pack whose command was killed near its end."""
    folder.mkdir()
    at = forked(lambda: pack(folder, source), folder).calls - 12
    shutil.rmtree(folder)
    folder.mkdir()
    assert forked(lambda: pack(folder, source), folder, Fault(at)).code == KILLED
    assert (folder / JOURNAL).read_bytes().count(b"\n") > 2 and not (folder / HEADER).exists()
    return folder


def test_every_file_call_of_packing(campaign, source, tmp_path, monkeypatch) -> None:
    """After any of them the same command ends with the same bytes, and until then nobody takes it for a pack."""
    monkeypatch.setattr(PackSource, "chunk", 2)
    monkeypatch.setattr(PackSource, "entry", 4)
    expected = contents(pack(tmp_path / "expected", source))
    folder = tmp_path / "pack"
    folder.mkdir()
    calls = forked(lambda: pack(folder, source), folder).calls
    faults = faults_of(calls, (folder / PIXELS).stat().st_size)

    def one(attempt: Attempt) -> str:
        shutil.rmtree(folder)
        folder.mkdir()
        fault = faults[attempt.number * 7 % len(faults)]
        ended = forked(lambda: pack(folder, source), folder, fault)
        attempt.keep(folder, "pack")
        attempt.keep(f"{fault} {ended}", "fault.txt")
        assert ended.code != 1 and "\n" not in ended.said, ended.said
        if (folder / HEADER).exists():
            verify_checksums(folder)
        assert contents(pack(folder, source)) == expected
        return {SAVED: "saved", KILLED: "killed"}.get(ended.code, "refused")

    campaign("file calls of packing", 25, len(faults)).run(one)


def test_damaged_journals(campaign, source, tmp_path, monkeypatch) -> None:
    """An unfinished pack with a damaged journal is refused, or ends with the same bytes."""
    monkeypatch.setattr(PackSource, "chunk", 2)
    monkeypatch.setattr(PackSource, "entry", 4)
    expected = contents(pack(tmp_path / "expected", source))
    begun, folder = unfinished(tmp_path / "begun", source), tmp_path / "pack"
    data = (begun / JOURNAL).read_bytes()

    def one(attempt: Attempt) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(begun, folder)
        spoilt = damaged(data, attempt.random)
        attempt.keep(spoilt, JOURNAL)
        (folder / JOURNAL).write_bytes(spoilt)
        kind = ending(lambda: pack(folder, source))
        assert kind == REFUSED or contents(folder) == expected
        return kind

    found = campaign("damage of a journal", 40, 2000).run(one)
    assert found[REFUSED] and found[USED]


def test_the_sample_is_read_with_and_without_a_pack(tmp_path) -> None:
    """What is compared is what is packed: real files, another crop."""
    folder = pack(tmp_path / "sample", SAMPLE, ["bigearthnet-val.csv"], "--crop", "resize")
    dataset = PackedDataset(folder, "bigearthnet-val.csv", dataset="bigearthnet_ls", crop="resize")
    assert len(dataset.read(range(len(dataset))).pixels) == len(dataset)
