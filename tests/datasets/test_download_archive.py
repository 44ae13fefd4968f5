"""Unpacking what was fetched: damaged archives, and archives that mean harm."""

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
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


HEADER_KINDS = {"pax": b"x", "pax for all": b"g", "Solaris": b"X", "long name": b"L", "long link": b"K"}


def header(kind: bytes, size: int, name: str = "top/evil") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", HEADER_KINDS.values(), ids=HEADER_KINDS.keys())
def test_a_header_is_judged_before_it_is_read(tmp_path, kind) -> None:
    """40 MB of header in 40 kB of archive, and one that says it has a terabyte."""
    for size, there in ((40 << 20, 40 << 20), (1 << 40, 512)):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header(kind, size) + bytes(there), 1))
        tracemalloc.start()
        with pytest.raises(DataError, match=r"a header of .* not to be trusted") as caught:
            unpack(tmp_path / "a.tar.gz", tmp_path / "out", "top")
        assert not isinstance(caught.value, DamagedArchive)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()


def deflated(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return raw.getvalue()


def test_what_comes_out_is_limited_by_what_the_archive_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download_archive, "SMALL", 100_000)
    many = {f"top/{number}": bytes(9_000) for number in range(20)}
    forms = {
        "a.tar.gz": tar_of(many),
        "a.zip": deflated(many),
        "b.tar.gz": tar_of({"top/a": b"1"}) + gzip.compress(bytes(300_000)),  # behind the last member
        "c.tar.gz": gzip.compress(header(b"g", 0) * 3000),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            unpack(tmp_path / name, tmp_path / "out" / name, "top")
        assert "unpack to more than 20 times" in str(caught.value) or name == "c.tar.gz"
    assert not (tmp_path / "out" / "a.zip").exists() and len(list((tmp_path / "out" / "a.tar.gz").iterdir())) < 20


def test_small_archives_may_shrink_as_they_like(tmp_path) -> None:
    """Patches of nothing but fill."""
    for name, content in (
        ("a.zip", deflated({"top/x": bytes(99_000)})),
        ("a.tar.gz", tar_of({"top/x": bytes(99_000)})),
    ):
        (tmp_path / name).write_bytes(content)
        assert unpack(tmp_path / name, tmp_path / name[2:], "top") == 1


def test_sparse_files_and_deep_folders_are_no_patches(tmp_path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header(b"S", 512) + bytes(1024)))
    is_refused(tmp_path / "a.tar.gz", tmp_path, "top/evil")
    deep = "top/" + "a/" * 1500 + "evil"
    for name, content in (("b.zip", zip_of({deep: b"1"})), ("b.tar.gz", tar_of({deep: b"1"}))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"lies in 150\d folders") as caught:
            unpack(tmp_path / name, tmp_path / "out", "top")
        assert len(str(caught.value)) < 500


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
