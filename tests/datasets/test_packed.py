"""Packs: the same numbers as the files, the same results of the scripts, and what is refused at opening."""

import csv
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from packing import EUROSAT, FOLDERS, IDS, SHAPE, SPLITS, pack, write_source
from tiny import TINY_MODEL, some_pixels, training_config, write_config, write_tif

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from datasets.loader import BatchLoader, build_dataset, shuffled
from datasets.pack.dataset import PackedDataset
from datasets.pack.format import read_header
from datasets.packed import main
from embed.compute_embed import main as embed
from models import build_model
from models.checkpoint import write_checkpoint
from pretrain_mae import main as pretrain
from utils.data_config import BigEarthNetInfo
from utils.errors import DataError
from utils.files import sha256


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "patches.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> dict[tuple[str, bool], Path]:
    """Both samples; EuroSAT's also with its resized values as published."""
    folder = tmp_path_factory.mktemp("packs")
    made = {}
    for name, published in (("bigearthnet_ls", False), ("eurosat_ls", False), ("eurosat_ls", True)):
        options = ["--published_behaviour"] if published else []
        out = folder / f"{name}_{published}"
        made[name, published] = pack(out, FOLDERS[name], SPLITS[name], *options, dataset=name)
    made["bigearthnet_ls", True] = made["bigearthnet_ls", False]  # one pack for both modes
    return made


@pytest.fixture
def source(tmp_path) -> Path:
    return write_source(tmp_path / "source")


# --------------------------------------------------------------------------- what a pack holds


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", ["bigearthnet_ls", "eurosat_ls"])
def test_batches_are_those_of_the_files(packs, name: str, published: bool) -> None:
    split = SPLITS[name][1]
    options = {"labels": "error", "image_size": 40, "published_behaviour": published}
    files = build_dataset(name, str(FOLDERS[name]), split, **options)
    packed = build_dataset(name, str(packs[name, published]), split, **options)
    assert isinstance(packed, PackedDataset)
    assert (packed.kind, packed.classes, packed.multilabel) == (files.kind, files.classes, files.multilabel)
    assert (packed.statistics, packed.crop, packed.ids) == (files.statistics, files.crop, files.ids)
    order = shuffled(len(files), 0, 0)
    for ours, theirs in zip(packed.batch(order), files.batch(order), strict=True):
        assert ours == theirs if not isinstance(ours, torch.Tensor) else torch.equal(ours, theirs)
    raw = packed.read(order)
    assert raw.pixels.dtype == np.uint16
    assert np.array_equal(packed.fill[order], (raw.pixels == 0).all(1).sum((1, 2)))


def test_the_table_by_hand(source, tmp_path) -> None:
    folder = pack(tmp_path / "pack", source)
    rows = table(folder)
    assert [row["id"] for row in rows] == IDS
    assert {row["time"] for row in rows} == {"2017-06-13T10:10:31"}
    assert [row["labels"] for row in rows[:3]] == ["", "missing", "17;42"]
    assert [row["fill"] for row in rows[:4]] == ["0", "0", "40", "0"]
    # 30 m pixels from (500000, 5500000) in UTM 33N: the centre lies 675 m east of 15 degrees and 645 m south.
    assert float(rows[0]["lon"]) == pytest.approx(15 + 675 / (111_320 * np.cos(np.radians(49.65))), abs=1e-4)
    assert float(rows[0]["lat"]) == pytest.approx(49.6471, abs=1e-3)
    assert all(repr(float(row[key])) == row[key] for row in rows for key in ("lat", "lon"))
    header = json.loads((folder / "pack.json").read_text())
    assert [header["label_names"][index] for index in (17, 42)] == ["Pastures", "Sea and ocean"]
    assert (header["count"], header["simulated"], header["recipe"]["crop"]) == (10, False, "center")
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    assert (pixels.dtype, pixels.shape, pixels.flags.c_contiguous) == (np.uint16, (10, 7, 40, 40), True)
    assert np.array_equal(pixels[3], some_pixels(3, SHAPE)[:, 1:41, 2:42])


def test_labels_as_from_files(source, tmp_path) -> None:
    folder = pack(tmp_path / "pack", source)
    assert build_dataset("bigearthnet_ls", str(folder), "split.csv", image_size=40).labels is None
    with pytest.raises(DataError, match=rf"1 patches were packed without a label file \({IDS[1]}\).*missing_labels"):
        PackedDataset(folder, "split.csv", dataset="bigearthnet_ls", labels="error")
    ours = PackedDataset(folder, "split.csv", dataset="bigearthnet_ls", labels="skip")
    theirs = BigEarthNetDatasetLS(source, "split.csv", labels="skip")
    assert (ours.ids, ours.skipped_labels) == (theirs.ids, [IDS[1]])
    assert torch.equal(ours.labels, theirs.labels)
    assert ours.labels[0].sum() == 0
    assert torch.equal(ours.batch([0, 8]).images, theirs.batch([0, 8]).images)
    (tmp_path / "none.csv").write_text(f"{IDS[1]}\n")
    with pytest.raises(DataError, match="none of the split's patches was packed with a label file"):
        PackedDataset(folder, tmp_path / "none.csv", dataset="bigearthnet_ls", labels="skip")


def test_any_split_of_packed_patches_in_its_own_order(packs, tmp_path) -> None:
    folder = packs["bigearthnet_ls", False]
    assert (folder / "bigearthnet-val.csv").read_bytes() == (SAMPLE / "bigearthnet-val.csv").read_bytes()
    ids = (SAMPLE / "samples.csv").read_text().split()[1:][::-3]
    (tmp_path / "mine.csv").write_text("0\n" + "\n".join(ids))
    dataset = PackedDataset(folder, tmp_path / "mine.csv", dataset="bigearthnet_ls")
    assert dataset.ids == ids
    files = BigEarthNetDatasetLS(SAMPLE, tmp_path / "mine.csv")
    assert np.array_equal(dataset.read([5, 0, 5]).pixels, files.read([5, 0, 5]).pixels)
    (tmp_path / "more.csv").write_text("\n".join([*ids, IDS[0], IDS[1]]))
    with pytest.raises(DataError, match=rf"more.csv: 2 of {len(ids) + 2} patches are not in the pack .*{IDS[0]}"):
        PackedDataset(folder, tmp_path / "more.csv", dataset="bigearthnet_ls")


def test_overlapping_splits_are_packed_once(source, tmp_path) -> None:
    (source / "few.csv").write_text(f"{IDS[4]}\n{IDS[0]}\n")
    folder = pack(tmp_path / "pack", source, ["few.csv", "split.csv"])
    assert [row["id"] for row in table(folder)] == [IDS[4], IDS[0], *(IDS[i] for i in (1, 2, 3, 5, 6, 7, 8, 9))]


def test_readers_in_other_processes(packs) -> None:
    dataset = PackedDataset(packs["bigearthnet_ls", False], "bigearthnet-train.csv", dataset="bigearthnet_ls")
    assert not dataset.hold_in_memory()
    assert len(pickle.dumps(dataset)) < 200_000  # no pixels in it
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].image, dataset[3].image)
    for ours, theirs in zip(*(BatchLoader(dataset, 64, n, torch.device("cpu")).batches() for n in (0, 2)), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert ours.ids == theirs.ids


def test_fingerprint(packs, source, tmp_path) -> None:
    folder = packs["bigearthnet_ls", False]

    def fingerprint(folder: Path, split: str, **options) -> str:
        return PackedDataset(folder, split, dataset="bigearthnet_ls", **options).fingerprint()

    train = fingerprint(folder, "bigearthnet-train.csv")
    assert train == fingerprint(folder, "bigearthnet-train.csv")
    assert train != fingerprint(folder, "bigearthnet-val.csv")
    assert train != fingerprint(folder, "bigearthnet-train.csv", published_behaviour=True)
    first = fingerprint(pack(tmp_path / "a", source), "split.csv")
    shutil.copytree(source, tmp_path / "copy")
    assert fingerprint(pack(tmp_path / "b", tmp_path / "copy"), "split.csv") == first
    write_tif(source / "images" / f"{IDS[0]}.tif", some_pixels(77, SHAPE))
    assert fingerprint(pack(tmp_path / "c", source), "split.csv") != first


# --------------------------------------------------------------------------- the scripts


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", ["bigearthnet_ls", "eurosat_ls"])
def test_embeddings_from_pack_and_files_are_the_same_bytes(packs, tmp_path, name: str, published: bool) -> None:
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    checkpoint = tmp_path / "tiny.pth"
    model = build_model("XXS", seed=0, published_behaviour=published, **options)
    write_checkpoint(checkpoint, model, epoch=0, best_train_loss=0.0)
    made = []
    for place, folder in (("files", FOLDERS[name]), ("pack", packs[name, published])):
        out = tmp_path / place
        config = write_config(
            tmp_path / f"{place}.yaml",
            model={"checkpoint_path": str(checkpoint), "device": "cpu"},
            data={"dataset": name, "dataset_path": str(folder), "splits": {"test": SPLITS[name][2]}, "batch_size": 16},
            embed={"pool": "all", "out_dir": str(out), "name": "e"},
        )
        assert embed(["--config_yaml", str(config)]) == 0
        made.append((out / "e_test.npz").read_bytes())
        record = json.loads((out / "e_test.json").read_text())
        assert record["simulated"]
        assert record["published_behaviour"] is published
    assert made[0] == made[1]


@pytest.mark.runs
def test_pretraining_on_a_pack_gives_the_same_losses(packs, tmp_path) -> None:
    rows = []
    for place, folder in (("files", SAMPLE), ("pack", packs["bigearthnet_ls", False])):
        (tmp_path / place).mkdir()
        config = training_config(tmp_path / place, dataset_path=str(folder), val_csv="bigearthnet-val.csv", epochs=2)
        assert pretrain(["--config_yaml", str(config)]) == 0
        rows.append((tmp_path / place / "run" / "training_metrics_XXS.csv").read_text())
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("bigearthnet_ls", {"name": "eurosat_ls"}, r"data\.dataset: bigearthnet_ls, not eurosat_ls; set data\.dataset"),
        ("bigearthnet_ls", {"crop": "resize"}, r"data\.crop: center, not resize; .* made with --crop resize"),
        ("bigearthnet_ls", {"image_size": 32}, r"model\.img_size: 40, not 32; .* made with --image_size 32"),
        ("eurosat_ls", {"published_behaviour": True}, "published_behaviour: false, not true; .* --published_behaviour"),
    ],
)
def test_a_pack_made_otherwise_is_refused(packs, name: str, asked: dict, message: str) -> None:
    options = {"name": name, "image_size": 40, **asked}
    with pytest.raises(DataError, match=f"was packed for {message}"):
        build_dataset(options.pop("name"), str(packs[name, False]), SPLITS[name][0], **options)


# --------------------------------------------------------------------------- damaged packs


def rewrite_header(folder: Path, **changes: object) -> None:
    path = folder / "pack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "pixels gone": (lambda folder: (folder / "pixels.npy").unlink(), r"pixels\.npy: is missing"),
    "table gone": (lambda folder: (folder / "patches.csv").unlink(), r"patches\.csv: is missing"),
    "header gone": (lambda folder: (folder / "pack.json").unlink(), r"holds no finished pack \(pack.json is missing\)"),
    "pixels cut": (lambda folder: os.truncate(folder / "pixels.npy", 100_000), "has 100,000 bytes where"),
    "split cut": (lambda folder: os.truncate(folder / "split.csv", 10), r"split\.csv: has 10 bytes"),
    "newer": (lambda folder: rewrite_header(folder, format=2, more=1), "has format 2, this code reads up to 1; update"),
    "no json": (lambda folder: (folder / "pack.json").write_text("{"), r"pack\.json: is damaged"),
    "wrong type": (lambda folder: rewrite_header(folder, count="ten"), r"pack\.json: is damaged \(count: "),
    "wrong count": (lambda folder: rewrite_header(folder, count=9), r"pixels\.npy: holds \(10, 7, 40, 40\)"),
    "no record": (lambda folder: rewrite_header(folder, files={}), "no record of patches.csv, pixels.npy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packs_are_refused_at_opening(source, tmp_path, damage: str) -> None:
    folder = pack(tmp_path / "pack", source)
    spoil_it, message = DAMAGES[damage]
    spoil_it(folder)
    with pytest.raises(DataError, match=message) as caught:
        build_dataset("bigearthnet_ls", str(folder), str(source / "split.csv"), image_size=40)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        main(["--check", str(folder)])


def test_a_split_file_of_the_pack_that_has_changed(source, tmp_path) -> None:
    """To patches that are in the pack as well; a split file of somebody else may list what it likes of them."""
    folder = pack(tmp_path / "pack", source)
    header = json.loads((folder / "pack.json").read_text())
    ids = (folder / "split.csv").read_text().split()
    (folder / "split.csv").write_text("\n".join([*ids[1:], ids[0]]) + "\n")
    assert (folder / "split.csv").stat().st_size == header["files"]["split.csv"]["bytes"]
    other = shutil.copy(folder / "split.csv", tmp_path / "other.csv")
    assert PackedDataset(folder, other, dataset="bigearthnet_ls").ids[-1] == ids[0]
    with pytest.raises(DataError, match=r"split\.csv: changed since the pack was made"):
        PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")


def test_tampering_is_found_by_check(source, tmp_path) -> None:
    folder = pack(tmp_path / "pack", source)
    assert main(["--check", str(folder)]) == 0
    with (folder / "pixels.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01")
    with pytest.raises(DataError, match=r"pack: pixels\.npy changed since the pack was made; remove the folder"):
        main(["--check", str(folder)])
    table, header = folder / "patches.csv", folder / "pack.json"
    lines, record = table.read_text(), json.loads(header.read_text())
    for tampered, said in (
        (lines.replace("2017-06-13T10", "2017-13-13T10"), "is damaged"),
        (lines.replace("time", "tide"), r"is damaged \(line 1: other columns\)"),
        (lines + lines.splitlines()[-1] + "\n", "holds 11 patches where the header says 10"),
        ("\n".join(lines.splitlines()[:-1]) + "\n", "holds 9 patches where the header says 10"),
        (lines.replace("missing", "missing,1"), r"is damaged \(line 3: 8 cells instead of 7\)"),
        (lines + '"', r"is damaged \(line 1\d: unexpected end of data\)"),
    ):
        header.write_text(json.dumps(record))
        table.write_text(tampered)
        with pytest.raises(DataError, match=r"patches\.csv: (changed since the pack was made|has [\d,]+ bytes where)"):
            PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")
        changed = {**record["files"], "patches.csv": {"bytes": len(tampered), "sha256": sha256(table)}}
        header.write_text(json.dumps({**record, "files": changed}))
        with pytest.raises(DataError, match=rf"patches\.csv: {said}"):
            PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")


def test_statistics(packs) -> None:
    options = {"image_size": 40, "statistics": "bigearthnet_ls"}
    dataset = build_dataset("eurosat_ls", str(packs["eurosat_ls", False]), "eurosat-val.txt", **options)
    assert dataset.statistics == BigEarthNetInfo.STATISTICS
    assert dataset.statistics != EuroSATDatasetLS(EUROSAT, "eurosat-val.txt").statistics


def as_recorded(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a pack, and its size and hash into the header."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "pack.json").read_text())["files"]
    rewrite_header(folder, files={**files, name: {"bytes": len(content), "sha256": sha256(folder / name)}})


def test_files_that_are_recorded_and_of_no_pack(source, tmp_path) -> None:
    """Whoever made them took their hashes, too."""
    whole = pack(tmp_path / "pack", source)
    pixels, checksums = ((whole / name).read_bytes() for name in ("pixels.npy", "checksums.u32"))
    for number, (name, content, said) in enumerate((
        ("pixels.npy", b"x" * len(pixels), r"pixels\.npy: cannot be mapped"),
        ("pixels.npy", pixels.replace(b"<u2", b"<i2"), r"pixels\.npy: holds \(10, 7, 40, 40\) int16 where"),
        ("pixels.npy", pixels.replace(b"False", b"True "), r"pixels\.npy: holds .* uint16 where"),
        ("checksums.u32", checksums[:-4], r"checksums\.u32: holds 9 where the header says 10"),
        ("checksums.u32", checksums + b"1234", r"checksums\.u32: holds 11 where the header says 10"),
    )):  # fmt: skip
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        as_recorded(folder, name, content)
        with pytest.raises(DataError, match=said) as caught:
            PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")
        assert "remove the folder and pack again" in str(caught.value)


def test_headers_that_cannot_be_read(source, tmp_path) -> None:
    folder = pack(tmp_path / "pack", source)
    header = folder / "pack.json"
    whole = header.read_bytes()
    for content, said in (
        (b"\xff\xfe", r"pack\.json: cannot be read \(not text\)"),
        (b"[]", r"pack\.json: is damaged \(the whole: "),
        (whole.replace(b"SR_B1", b"SR_B9"), "is damaged \\(bands or label names are not those of bigearthnet_ls"),
        (whole.replace(b"Pastures", b"pastures"), "is damaged \\(bands or label names are not those of"),
    ):
        header.write_bytes(content)
        with pytest.raises(DataError, match=said):
            PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")
    header.unlink()
    header.mkdir()
    with pytest.raises(DataError, match=r"pack\.json: cannot be read \(Is a directory\)"):
        PackedDataset(folder, "split.csv", dataset="bigearthnet_ls")
    with pytest.raises(DataError, match="absent: no such folder"):
        read_header(tmp_path / "absent")
