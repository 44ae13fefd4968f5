"""Unpacking what was fetched: damaged archives, and archives that mean harm."""

import gzip
import stat
import tarfile
from pathlib import Path

import downloading
import pytest
from downloading import contents, download, needs_hub, published_files, tar_of, tree, zip_of
from hub_server import Hub, serving

from datasets.download import archive as download_archive
from datasets.download.archive import DamagedArchive, unpack
from datasets.download.source import BIGEARTHNET
from utils.errors import DataError

_quick = downloading.quick


# --------------------------------------------------------------------------- damage


def test_a_gzip_checksum_after_the_last_member_counts(tmp_path) -> None:
    data = bytearray(tar_of({"a/b.tif": b"1"}))
    data[-8] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "a.tar.gz", tmp_path / "a", "a")


def test_gzip_is_not_trusted_beyond_its_end(tmp_path) -> None:
    """A second gzip stream after the first belongs to the archive, as gzip says; its damage counts."""
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"a/b.tif": b"1"}) + gzip.compress(b"x" * 99)[:-9])
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
