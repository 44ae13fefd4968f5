"""Small published datasets, a hub that serves them, and the command that fetches them, for the tests of downloads."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SAMPLE
from hub_server import Hub, serving
from packing import EUROSAT as EUROSAT_SAMPLE

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.download import hub as download_hub
from datasets.download.__main__ import main
from datasets.download.source import BIGEARTHNET, EUROSAT, Published
from datasets.eurosat import EuroSATDatasetLS

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


def download(hub: Hub | str, out: Path, *options: str, published: dict[str, Published] = SMALL) -> int:
    name = next(name for name, source in SMALL.items() if isinstance(hub, str) or source.repo == hub.repo)
    url = hub if isinstance(hub, str) else hub.url
    return main([name, "--out", str(out), "--endpoint", url, *options], published)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_splits(dataset: str, out: Path) -> list:
    kind, options = (EuroSATDatasetLS, {}) if dataset == "eurosat_ls" else (BigEarthNetDatasetLS, {"labels": "error"})
    return [kind(out, name, **options) for name in SMALL[dataset].splits.values()]


# --------------------------------------------------------------------------- fixtures, which a test file takes by name


@pytest.fixture(params=["bigearthnet_ls", "eurosat_ls"])
def dataset(request) -> str:
    return request.param


@pytest.fixture
def hub(dataset) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the optional package huggingface_hub is not installed")
    with serving(Hub(SMALL[dataset].repo, published_files(dataset))) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """No waiting."""
    monkeypatch.setattr(download_hub, "RETRY_WAIT", 0.01)
    monkeypatch.setattr(
        "datasets.download.transfer.os.sync", lambda: None
    )  # waits for whatever else the machine writes
