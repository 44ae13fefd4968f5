"""Files and folders that are whole or absent, what dead processes leave of them, and checksums of what they hold."""

import errno
import hashlib
import io
import json
import math
import os
import platform
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from scripts import is_one_clear_line, run

from utils import files, owners, temporary
from utils.archives import damage_of
from utils.checked_json import CHECKSUM, CHECKSUM_OF, checksum_of, has_checksum, is_changed, write_checked_json
from utils.errors import UserError, run_script
from utils.files import (
    atomic_path,
    check_writable,
    make_folder,
    remove_empty_folders,
    replaced_folder,
    sha256,
    sync,
    umask,
    write_checked_npz,
    write_json,
    write_npz,
    write_text,
)
from utils.owners import Owner, this_process
from utils.row_checksums import RowChecksums, checksums_from, crc_of, row_slices
from utils.temporary import remove_leftovers, temporary_file, temporary_folder

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(*arguments: object, **options: object) -> None:
    raise FULL


# --------------------------------------------------------------------------- one file


def test_a_file_is_written_with_its_folder_and_the_usual_rights(tmp_path) -> None:
    before = os.umask(0o027)
    try:
        path = write_text(str(tmp_path / "new" / "a.txt"), "é\n")
        assert umask() == 0o027 and umask() == 0o027
    finally:
        os.umask(before)
    assert path == tmp_path / "new" / "a.txt" and path.read_bytes() == "é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and names(path.parent) == ["a.txt"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch) -> None:
    """And the name is, before anybody hears that it has been written."""
    path, real, synced = tmp_path / "a.txt", os.fsync, []

    def fsync(descriptor: int) -> None:
        named = path.exists() and path.read_text() == "new"
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), named))
        real(descriptor)

    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "new")
    assert synced == [(False, False), (True, True)]


def test_descriptors_are_closed_also_where_syncing_fails(tmp_path, monkeypatch) -> None:
    (tmp_path / "a").touch()
    first = os.open(tmp_path / "a", os.O_RDONLY)
    os.close(first)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        sync(tmp_path / "a")
    again = os.open(tmp_path / "a", os.O_RDONLY)
    os.close(again)
    assert again == first


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(path) as unfinished:
        unfinished.write_text("new")
        raise error
    assert names(tmp_path) == ["a.txt"] and path.read_text() == "old"


def test_a_trial_leaves_nothing(tmp_path) -> None:
    with atomic_path(tmp_path / "a.txt", keep=False) as unfinished:
        unfinished.write_text("x")
        assert unfinished.parent == tmp_path and unfinished.name.startswith(".a.") and unfinished.suffix == ".txt"
    assert names(tmp_path) == []
    assert check_writable(str(tmp_path / "new")) == tmp_path / "new" and names(tmp_path / "new") == []


def test_messages_name_the_file_that_is_meant(tmp_path, monkeypatch) -> None:
    """The one that was asked for, never its temporary name; another one where that is the cause."""
    path = tmp_path / "a.txt"
    with pytest.raises(UserError, match=rf"^cannot write {path}: no space left on the device"), atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match=rf"^cannot write {path}: no space"), atomic_path(path) as unfinished:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unfinished))
    with pytest.raises(UserError, match=rf"^cannot write {path}: no space"), atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with pytest.raises(UserError, match=r"^cannot write /elsewhere/b: no such file"), atomic_path(path):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/elsewhere/b")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        with pytest.raises(UserError, match=rf"^cannot write {path}: no space"), atomic_path(path):
            raise AssertionError("there is nothing to write to")
    path.write_text("a file")
    with pytest.raises(UserError, match=rf"^cannot create folder {path}"):
        make_folder(path)
    with pytest.raises(UserError, match=rf"^cannot create folder {path}"), atomic_path(path / "b"):
        raise AssertionError("there is nothing to write to")
    assert names(tmp_path) == ["a.txt"]
    assert make_folder(str(tmp_path / "b" / "c")) == tmp_path / "b" / "c" == make_folder(tmp_path / "b" / "c")


def test_json_is_json(tmp_path) -> None:
    path = write_json(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    null\n  ],\n  "a": "\\u00e9"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text())["b"] == [1, None] and names(tmp_path) == ["a.json"]


def test_a_hash_is_that_of_the_bytes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(str(tmp_path / "a")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --------------------------------------------------------------------------- a folder


def replace(target: Path, content: str) -> None:
    with replaced_folder(target) as folder:
        assert folder.parent == target.parent and folder.name.startswith(f".{target.name}.")
        (folder / content).write_text(content)


def test_a_folder_takes_the_place_of_another(tmp_path) -> None:
    target, before = tmp_path / "above" / "out.v1", os.umask(0o027)
    try:
        for content in ("first", "second"):
            replace(target, content)
            assert names(target) == [content] and names(target.parent) == ["out.v1"]
        assert stat.S_IMODE(target.stat().st_mode) == 0o750
    finally:
        os.umask(before)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("failing", ["mkdtemp", "work", "work, disk", "rename"])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, there, failing) -> None:
    target = tmp_path / "out"
    if there:
        replace(target, "first")
    real = Path.replace

    def failing_replace(self: Path, other: Path) -> Path:
        if other == target and "second" in names(self):
            raise FULL
        return real(self, other)

    if failing == "mkdtemp":
        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    elif failing == "rename":
        monkeypatch.setattr(Path, "replace", failing_replace)
    expected = ValueError if failing == "work" else UserError
    with pytest.raises(expected, match="x" if failing == "work" else rf"^cannot write {target}: no space left"):
        with replaced_folder(target) as folder:
            (folder / "second").touch()
            if failing.startswith("work"):
                raise FULL if failing == "work, disk" else ValueError("x")
    assert names(tmp_path) == (["out"] if there else [])
    assert not there or names(target) == ["first"]


def test_a_folder_is_never_there_in_part(tmp_path, monkeypatch) -> None:
    """Whatever is removed has another name by then."""
    target, real = tmp_path / "out", files.shutil.rmtree
    replace(target, "first")

    def rmtree(path: Path, **options: object) -> None:
        assert path != target and names(target) == ["second"]
        real(path, **options)

    monkeypatch.setattr(files.shutil, "rmtree", rmtree)
    replace(target, "second")


# --------------------------------------------------------------------------- arrays


def test_arrays_are_the_same_bytes_each_time(tmp_path) -> None:
    """Of both writers, and as numpy reads them; strided arrays and such without rows too."""
    random = np.random.default_rng(0)
    first = random.normal(size=(12, 5)).astype(np.float32)
    others = {"y": np.arange(12, dtype=np.int16), "ids": np.array(["a", "bc"])}
    for array in (first, first[::2], first[:, ::2], first[:0]):
        plain = write_npz(str(tmp_path / "plain.npz"), {"x": array, **others}).read_bytes()
        found = write_checked_npz(str(tmp_path / "checked.npz"), "x", array, others)
        assert (tmp_path / "checked.npz").read_bytes() == plain
        with np.load(tmp_path / "checked.npz") as read:
            assert list(read) == ["x", "y", "ids"] and np.array_equal(read["x"], array)
        with zipfile.ZipFile(tmp_path / "plain.npz") as archive:
            assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        assert found.dtype == "<f4" and found.shape == list(array.shape)
        assert [crc_of(array[rows]) for rows, _ in found.blocks()] == found.crc32
        assert len(found.crc32) == bool(len(array))


def test_objects_are_not_written(tmp_path) -> None:
    strange = np.array([{}], dtype=object)
    for write in (
        lambda: write_npz(tmp_path / "a.npz", {"x": strange}),
        lambda: write_checked_npz(tmp_path / "a.npz", "x", np.zeros((1, 1)), {"y": strange}),
    ):
        with pytest.raises(ValueError, match=r"[Oo]bject"):
            write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("rows, most, expected", [(5, 16, [2, 2, 1]), (4, 16, [2, 2]), (3, 1, [1, 1, 1]), (0, 16, [])])
def test_blocks_of_rows(rows, most, expected) -> None:
    array = np.arange(2 * rows, dtype="<f4").reshape(rows, 2)
    slices = list(row_slices(array, most))
    assert [one.stop - one.start for one in slices] == expected
    assert np.array_equal(np.concatenate([array[one] for one in slices] or [array]), array)


def test_rows_without_columns_are_one_block() -> None:
    assert list(row_slices(np.zeros((3, 0)), 2)) == [slice(0, 2), slice(2, 3)]


def test_checksums_go_on_from_each_other() -> None:
    array = np.arange(12, dtype="<u2").reshape(4, 3)
    assert crc_of(array) == zlib.crc32(array.tobytes()) == crc_of(array[2:], crc_of(array[:2]))
    assert crc_of(array[:, ::2]) == zlib.crc32(np.ascontiguousarray(array[:, ::2]).tobytes())


def test_checksums_as_a_record_holds_them() -> None:
    whole = RowChecksums("<f4", [5, 2], 2, [7, 8, 9])
    assert checksums_from(json.loads(json.dumps(whole._asdict()))) == whole
    assert list(whole.blocks()) == [(slice(0, 2), 7), (slice(2, 4), 8), (slice(4, 5), 9)]
    for change in (
        {"rows": 0}, {"rows": -2}, {"rows": 2.0}, {"rows": "2"}, {"rows": 3}, {"rows": None}, {"shape": []},
        {"shape": [5.0, 2]}, {"shape": 5}, {"crc32": [7, 8]}, {"crc32": [7, 8, 9, 10]}, {"crc32": [7, 8, "9"]},
        {"crc32": None}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^no checksums"):
            checksums_from(whole._asdict() | change)
    for nothing in (None, [], {}, "x"):
        with pytest.raises(ValueError, match="no checksums"):
            checksums_from(nothing) if not isinstance(nothing, list) else checksums_from({"rows": nothing})
    assert checksums_from(RowChecksums("<f4", [0, 2], 1, [])._asdict()).crc32 == []
    assert checksums_from(RowChecksums("<f4", [1, 2], 1, [3])._asdict()).rows == 1


# --------------------------------------------------------------------------- records


def test_a_record_knows_its_own_changes(tmp_path) -> None:
    record = {"b": [1, 2.5, None], "a": {"é": True}}
    path = write_checked_json(tmp_path / "a.json", record)
    read = json.loads(path.read_text())
    assert read == {**record, CHECKSUM_OF: "all other entries", CHECKSUM: checksum_of(record)}
    assert list(read)[-2:] == [CHECKSUM_OF, CHECKSUM] and checksum_of(read) == checksum_of(record)
    assert checksum_of({"a": 1, "b": 2}) == checksum_of({"b": 2, "a": 1})
    assert checksum_of({"b": [2, None], "a": 1}) == "cc243773f70c3dff1b2058928d222d7edc29130da3f617c0e8ce04096aca153c"
    assert has_checksum(read) and not is_changed(read)
    assert is_changed({**read, "b": [1, 2.5]}) and is_changed({**read, "c": 1}) and is_changed({**read, CHECKSUM: None})
    for key in (CHECKSUM, CHECKSUM_OF):
        without = {name: value for name, value in read.items() if name != key}
        assert has_checksum(without) and is_changed(without) == (key == CHECKSUM)
    assert not has_checksum(record) and not is_changed(record)


# --------------------------------------------------------------------------- archives


def archive(method: int = zipfile.ZIP_STORED) -> bytearray:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as made:
        made.writestr("a", b"x" * 300)
        made.writestr("b", b"y" * 9000)
    return bytearray(raw.getvalue())


def test_damage_of_archives_is_named(tmp_path, monkeypatch) -> None:
    whole = archive()
    assert damage_of(io.BytesIO(whole)) is None and damage_of(io.BytesIO(archive(zipfile.ZIP_DEFLATED))) is None
    (tmp_path / "a.zip").write_bytes(whole)
    assert damage_of(tmp_path / "a.zip") is None
    spoilt = bytearray(whole)
    spoilt[whole.rindex(b"yyy")] ^= 1
    assert damage_of(io.BytesIO(spoilt)) == "b: Bad CRC-32 for file 'b'"
    with monkeypatch.context() as patch:
        patch.setattr("utils.archives.PIECE", 100)
        assert damage_of(io.BytesIO(spoilt)) == "b: Bad CRC-32 for file 'b'", "read to its end, piece by piece"
    assert damage_of(io.BytesIO(whole[:-9])) == "File is not a zip file"
    spoilt = bytearray(archive(zipfile.ZIP_DEFLATED))
    spoilt[spoilt.index(b"b", 30) + 1] ^= 0xFF
    assert (damage_of(io.BytesIO(spoilt)) or "").startswith("b: Error -3 while decompressing")
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in (damage_of(io.BytesIO(encrypted)) or "")
    folder = bytearray(whole)
    folder[whole.index(b"PK\x01\x02") + 38] |= 0x10
    assert damage_of(io.BytesIO(folder)) == "a: is marked as a folder"
    folder[whole.index(b"PK\x01\x02") + 38] ^= 0x11
    assert damage_of(io.BytesIO(folder)) is None, "read-only"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "twice.zip", "w") as made:
        made.writestr("a", b"1")
        made.writestr("a", b"2")
    assert damage_of(tmp_path / "twice.zip") == "two members have one name"
    cut = whole[:60] + whole[-(len(whole) - whole.index(b"PK\x01\x02")) :]
    assert damage_of(io.BytesIO(cut)) is not None


@pytest.mark.parametrize("error, said", [(EOFError(), "EOFError"), (zlib.error("one\ntwo"), "one")])
def test_damage_is_said_in_one_line(monkeypatch, error, said) -> None:
    """Also where Python's error has no words, or many."""

    def fail(*_: object, **__: object) -> None:
        raise error

    whole = archive()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", fail)
        assert damage_of(io.BytesIO(whole)) == f"a: {said}"
    monkeypatch.setattr(zipfile.ZipFile, "infolist", fail)
    assert damage_of(io.BytesIO(whole)) == said


# --------------------------------------------------------------------------- owners and leftovers


def test_names_tell_whose_they_are(tmp_path) -> None:
    file, folder = temporary_file(tmp_path / "a.b.npz"), temporary_folder(tmp_path / "a.b")
    owner = "-".join(map(str, this_process()))
    assert file.is_file() and file.name.startswith(f".a.b.{owner}.") and file.name.endswith(".tmp.npz")
    assert folder.is_dir() and folder.name.startswith(f".a.b.{owner}.") and folder.name.endswith(".tmp")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([file.name, folder.name])


def of_a_dead_one(path: Path) -> Path:
    here = this_process()
    name = path.name.replace(f".{here.pid}-{here.started}-", f".{2**22 + 1}-1-")
    assert name != path.name
    return path.rename(path.with_name(name))


def test_what_goes_while_it_is_removed(tmp_path, monkeypatch, capsys) -> None:
    """Another process that starts in the same folder removes it, too; of a folder, a file."""
    of_a_dead_one(temporary_file(tmp_path / "a.txt")).write_text("x" * 1000)
    folder = of_a_dead_one(temporary_folder(tmp_path / "b"))
    for name in ("one", "two"):
        (folder / name).write_text("x" * 500)
    real_unlink, real_glob = Path.unlink, Path.rglob

    def unlink(self: Path, missing_ok: bool = False) -> None:
        real_unlink(self)
        real_unlink(self)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "rglob", lambda self, _: [*real_glob(self, "*"), self / "gone"])
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []
    assert f"{tmp_path}: removed 2 unfinished of runs that were killed (2.0 kB)\n" in capsys.readouterr().out
    assert not temporary._is_left(tmp_path / f".probe_20260101-000000{temporary.RESERVED}"), "it is gone already"


def test_owners_of_other_users_and_systems(monkeypatch) -> None:
    here = this_process()
    assert here.pid == os.getpid() and here.alive is True and here.started.isdigit() and len(here.machine) == 8

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", forbidden)
        assert here.alive is True and here._replace(started="1").alive is False
    assert Owner(2**22 + 1, "", here.machine).alive is False
    with monkeypatch.context() as patch:
        patch.setattr(owners, "_started", lambda pid: "")
        assert here.alive is True, "nobody says when it started"
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", refuse)
        elsewhere = this_process().machine
    assert elsewhere == hashlib.sha256(f"{platform.node()} ".encode()).hexdigest()[:8] != here.machine
    with monkeypatch.context() as patch:
        patch.setattr(owners.platform, "node", lambda: "another host")
        assert this_process().machine != here.machine and here.alive is None
    monkeypatch.setattr(owners.os, "name", "nt")
    assert here.alive is None, "to ask would end it"


def test_when_a_process_started(tmp_path, monkeypatch) -> None:
    """Its name may hold spaces and brackets; a system without such files says nothing."""
    stat_file = tmp_path / "stat"
    monkeypatch.setattr(owners, "Path", lambda name: stat_file if name == "/proc/7/stat" else Path(name))
    stat_file.write_bytes(b"7 (\xff ) b)) S " + " ".join(str(number) for number in range(4, 30)).encode())
    assert owners._started(7) == "22"
    stat_file.write_text("7 (a) S")
    assert owners._started(7) == ""
    monkeypatch.setattr(Path, "read_text", refuse)
    assert owners._started(7) == ""


def test_a_refused_command_leaves_no_folder_unless_something_is_in_it(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    made = tmp_path / "one" / "refused"

    def refused() -> None:
        check_writable(tmp_path / "there")
        (check_writable(made) / "part").mkdir()
        (check_writable(tmp_path / "begun") / "first.npz").write_bytes(b"x")
        raise UserError("no")

    with pytest.raises(SystemExit) as caught:
        run_script(refused)
    assert caught.value.code == 2
    assert (tmp_path / "there").exists() and not made.parent.exists() and (tmp_path / "begun" / "first.npz").exists()
    check_writable(made)
    temporary_folder(made / "other")  # a process that is alive makes something there
    remove_empty_folders()
    assert made.exists()
    with pytest.raises(UserError, match="cannot create folder"):
        check_writable(tmp_path / ("long" * 100))
    with pytest.raises(SystemExit):
        run_script(lambda: check_writable(tmp_path / "fine") and None)
    assert (tmp_path / "fine").exists(), "nothing was refused"


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed.compute_embed", "--config_yaml", "configs/sample_embed.yaml", "--set", "embed.out_dir={out}"],
        ["pretrain_mae.py", "--config_yaml", "configs/sample_pretrain.yaml", "--set", "training.weight_path={out}"],
        ["eval_mae.py", "--config_yaml", "configs/sample_eval.yaml", "--set", "eval.reconstructions_dir={out}"],
    ],
)
@pytest.mark.runs
def test_scripts_that_are_refused_leave_no_folder(tmp_path, arguments: list[str]) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    out = tmp_path / "out"
    words = [word.format(out=out) for word in arguments]
    is_one_clear_line(run(*words, "--set", f"model.checkpoint_path={tmp_path / 'bad.pth'}"), "bad.pth")
    assert not out.exists()
