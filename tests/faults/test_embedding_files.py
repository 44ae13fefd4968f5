"""Embedding files with flipped bits, cut off, or beside another's record: refused, or the very numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from embedding_files import clusters
from faults import REFUSED, Attempt, damaged, ending
from file_calls import KILLED, SAVED, Fault, faults_of, forked
from file_calls import REFUSED as CODE_REFUSED

import utils.row_checksums
from classification_models import checked_arrays
from classification_models.embeddings import X_CHECKSUMS, read_embeddings, select_features
from utils.checked_json import write_checked_json
from utils.errors import DataError
from utils.files import write_checked_npz, write_npz

WIDTH = 200
"""Of the features: an archive compares what is smaller than a page when it reads an array's first bytes."""


def write(path: Path, seed: int = 0, width: int = WIDTH) -> Path:
    """As `embed.compute_embed` writes it, in blocks of 8 rows."""
    x, y, ids = clusters(50, width, seed=seed)
    others = {"y_test": y.astype(np.int16), "ids": np.array(ids)}
    checksums = write_checked_npz(path, "x_test", x.astype(np.float32), others)
    write_checked_json(path.with_suffix(".json"), {"split": "test", "pool": "cls", X_CHECKSUMS: checksums._asdict()})
    return path


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(utils.row_checksums.row_slices, "__defaults__", (8 * WIDTH * 4,))
    monkeypatch.setattr(checked_arrays, "_compared", set())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.row_checksums.row_slices, "__defaults__", (8 * WIDTH * 4,))
        return write(tmp_path_factory.mktemp("whole") / "e_test.npz")


def contents(path: Path) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    read = read_embeddings(path)
    return np.array(select_features(read)), read.y, None if read.ids is None else read.ids.tolist()


def same(ours: tuple, theirs: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True)) and ours[2] == theirs[2]


@pytest.mark.parametrize("kind", ["with its record", "without", "compressed"])
def test_damaged_files(campaign, whole, tmp_path, kind) -> None:
    path = tmp_path / "e_test.npz"
    if kind == "compressed":
        with np.load(whole) as arrays:
            np.savez_compressed(path, **arrays)
    else:
        shutil.copy(whole, path)
    if kind == "with its record":
        shutil.copy(whole.with_suffix(".json"), tmp_path)
    expected, data = contents(path), path.read_bytes()

    def one(attempt: Attempt) -> str:
        spoilt = damaged(data, attempt.random)
        attempt.keep(spoilt, path.name)
        path.write_bytes(spoilt)
        checked_arrays._compared.clear()  # the next try's file may have the same size and time

        def work() -> None:
            assert same(contents(path), expected), "other numbers in silence"

        return ending(work)

    found = campaign(f"damage of an embedding file {kind}", 250, 5000).run(one)
    assert found[REFUSED] > 0.8 * found.total()


def test_damaged_records(campaign, whole, tmp_path) -> None:
    path = Path(shutil.copy(whole, tmp_path))
    beside = Path(shutil.copy(whole.with_suffix(".json"), tmp_path))
    expected, data = read_embeddings(path).provenance, beside.read_bytes()

    def one(attempt: Attempt) -> str:
        spoilt = damaged(data, attempt.random)
        attempt.keep(spoilt, beside.name)
        beside.write_bytes(spoilt)
        checked_arrays._compared.clear()

        def work() -> None:
            read = read_embeddings(path)
            select_features(read)
            assert all(read.provenance[key] == expected[key] for key in expected if key != "checksum_of")

        return ending(work)

    found = campaign("damage of an embedding file's record", 250, 5000).run(one)
    assert found[REFUSED] > 0.8 * found.total()


def test_a_damaged_block_is_named_and_no_other_is_refused(whole, tmp_path) -> None:
    """Whatever is chosen of the features; and numbers that are compared once are not compared again."""
    path = Path(shutil.copy(whole, tmp_path))
    shutil.copy(whole.with_suffix(".json"), tmp_path)
    x = read_embeddings(path).x
    at = path.read_bytes().index(x[19].tobytes())
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    for columns in (None, slice(4, 8)):
        with pytest.raises(DataError, match=r"e_test\.npz: rows 16 to 23 differ from what was written"):
            select_features(read_embeddings(path), columns=columns)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"differs from what was written \(checksum of the archive\)"):
        select_features(read_embeddings(path), columns=slice(4, 8))


@pytest.mark.parametrize("with_record", [True, False])
def test_compared_once_and_without_a_second_pass(whole, tmp_path, monkeypatch, with_record) -> None:
    path = Path(shutil.copy(whole, tmp_path))
    if with_record:
        shutil.copy(whole.with_suffix(".json"), tmp_path)
    visited, real = [], checked_arrays.crc_of
    monkeypatch.setattr(
        checked_arrays, "crc_of", lambda rows, before=0: (visited.append(len(rows)), real(rows, before))[1]
    )
    for _ in range(2):
        x = select_features(read_embeddings(path))
        assert isinstance(x, np.memmap)
        assert sum(visited) == 50 and (len(visited) == 7 or not with_record)
    write(path, seed=1)
    select_features(read_embeddings(path))
    assert sum(visited) == 100, "another file of the same name"


def test_the_record_of_another_file(whole, tmp_path) -> None:
    path = write(tmp_path / "e_test.npz", seed=1)
    shutil.copy(whole.with_suffix(".json"), tmp_path)
    with pytest.raises(DataError, match="rows 0 to 7 differ from what was written"):
        select_features(read_embeddings(path))
    write_npz(path, {"x_test": np.zeros((3, WIDTH), np.float32), "y_test": np.zeros(3, np.int16)})
    with pytest.raises(DataError, match=r"holds float32 \(3, 200\), its JSON is of <f4 \[50, 200\]"):
        read_embeddings(path)
    write_checked_json(path.with_suffix(".json"), {X_CHECKSUMS: {"rows": 0, "shape": [3], "dtype": "<f4", "crc32": []}})
    with pytest.raises(DataError, match="`x_checksums` holds no checksums"):
        read_embeddings(path)


def test_files_and_records_of_before(whole, tmp_path) -> None:
    """The same bytes as ever; a record without checksums, or none."""
    with np.load(whole) as arrays:
        write_npz(tmp_path / "e_test.npz", arrays)
        assert (tmp_path / "e_test.npz").read_bytes() == whole.read_bytes()
    expected = contents(whole)
    (tmp_path / "e_test.json").write_text(json.dumps({"split": "test", "pool": "cls"}))
    assert same(contents(tmp_path / "e_test.npz"), expected)
    (tmp_path / "e_test.json").write_text(json.dumps({"split": "test", "checksum": "0"}))
    with pytest.raises(DataError, match=r"e_test\.json: is not what was written there; restore it"):
        read_embeddings(tmp_path / "e_test.npz")


def test_every_file_call_of_writing_one(campaign, whole, tmp_path) -> None:
    """Afterwards the earlier file, the new one, or the new one that says that its record is another's."""
    folder = tmp_path / "out"

    def work() -> None:
        write(folder / "e_test.npz", seed=1)

    folder.mkdir()
    calls = forked(work, folder).calls
    faults, earlier, later = faults_of(calls, whole.stat().st_size), contents(whole), contents(folder / "e_test.npz")

    def one(attempt: Attempt) -> str:
        shutil.rmtree(folder)
        shutil.copytree(whole.parent, folder)
        fault = faults[attempt.number % len(faults)]
        ended = forked(work, folder, fault)
        attempt.keep(folder, "out")
        attempt.keep(f"{fault} {ended}", "fault.txt")
        kills = fault.kill or (fault.error is None and fault.at is not None)
        assert ended.code == SAVED or ended.code == (KILLED if kills else CODE_REFUSED), ended
        assert kills or not list(folder.glob(".*"))
        checked_arrays._compared.clear()
        seen = []
        kind = ending(lambda: seen.append(contents(folder / "e_test.npz")))
        assert kind == REFUSED or same(seen[0], later) or (same(seen[0], earlier) and ended.code != SAVED)
        return kind

    campaign("file calls of writing an embedding file", len(faults), len(faults)).run(one)


def test_no_fault_is_none(tmp_path) -> None:
    """The forked work really ends as it is told to: the other tests would pass with nothing happening, too."""
    assert forked(lambda: write(tmp_path / "a.npz"), tmp_path, Fault()).code == SAVED
    killed = forked(lambda: write(tmp_path / "b.npz"), tmp_path, Fault(most_bytes=1000, kill=True))
    assert killed.code == KILLED and not (tmp_path / "b.npz").exists() and list(tmp_path.glob(".b.*"))
    short = forked(lambda: write(tmp_path / "c.npz"), tmp_path, Fault(most_bytes=1000))
    assert short.code == CODE_REFUSED and "c.npz: the file would exceed" in short.said
    assert not list(tmp_path.glob(".c.*"))
    assert forked(lambda: 1 / 0, tmp_path).code == 1
