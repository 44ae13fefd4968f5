"""Batches: the same bits whoever reads them, padding, parts, fill, reading ahead, and normalisation of bare bits."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from packing import pack
from tiny import some_pixels, write_bigearthnet
from torch.utils.data import DataLoader

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader, Part, build_dataset, shuffled
from datasets.patches import Batch
from datasets.readers import (
    RESIDENT_SHARE,
    DirectReader,
    ResidentReader,
    WorkerReader,
    ahead,
    empty_patches,
    reader,
)
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import DataError

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
COUNT, SIZE = 11, 4
IDS = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(COUNT)]
FILL_ONLY = {5, 9}
ORDER = [5, 7, 0, 2, 10, 3, 9, 1, 4, 6, 8]
WAYS = {"files": (0, False), "readers": (1, False), "memory": (0, False), "resident": (0, True), "pack": (1, False),
        "resident pack": (0, True)}  # fmt: skip
"""Reader processes, and whether all patches are held on the device."""


def a_patch(number: int) -> np.ndarray:
    """Over the whole range of stored numbers, with some fill in some and nothing else in others."""
    pixels = np.random.default_rng(number).integers(1, 65_536, (7, 43, 43), dtype=np.uint16)
    if number == 2:
        pixels[:, 10:20] = 0
    if number == 3:
        pixels[:, 21, 21] = 0  # the pixel that stands for its patch in a first look
    if number in FILL_ONLY:
        pixels[:] = 0
    return pixels


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset in files, and packed."""
    root = tmp_path_factory.mktemp("loader")
    names = ["Pastures", "Sea and ocean", "Airports"]
    labels = {patch_id: names[: number % 3] for number, patch_id in enumerate(IDS)}
    files = write_bigearthnet(root / "files", {patch_id: a_patch(i) for i, patch_id in enumerate(IDS)}, labels)
    return files, pack(root / "pack", files)


def a_loader(folders, way: str = "files", published: bool = False, labels: str = "error") -> BatchLoader:
    folder = folders[1] if "pack" in way else folders[0]
    options = {"image_size": 40, "labels": labels, "published_behaviour": published}
    dataset = build_dataset("bigearthnet_ls", str(folder), "split.csv", **options)
    assert dataset.ids == IDS
    if way == "memory":
        assert dataset.hold_in_memory()
    workers, resident = WAYS[way]
    return BatchLoader(dataset, SIZE, workers, CPU, resident)


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name, a, b in zip(Batch._fields, mine, other, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def rows(batches: list[Batch], numbers: slice) -> list[Batch]:
    """The same rows of every batch."""
    return [Batch(*(value[numbers] for value in batch)) for batch in batches]


# --------------------------------------------------------------------------- the same batches


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_every_way_gives_the_bits_of_the_files(folders, way: str, published: bool) -> None:
    plain, other = (a_loader(folders, name, published) for name in ("files", way))
    kinds = {"readers": WorkerReader, "resident": ResidentReader, "resident pack": ResidentReader}
    assert type(other.reader) is kinds.get(way, DirectReader)
    assert_same(list(other.batches(ORDER)), list(plain.batches(ORDER)))
    for start, padded in ((0, False), (1, True)):
        ours, theirs = (list(loader.training_batches(ORDER, start, padded=padded)) for loader in (other, plain))
        assert_same(ours, theirs)
    assert other.skipped_fill == plain.skipped_fill == (0 if published else 2 + 2 + 1)


def test_batches_by_hand(folders) -> None:
    loader = a_loader(folders)
    batches = list(loader.training_batches(ORDER))
    assert len(loader) == len(batches) == 3
    assert [len(batch.images) for batch in batches] == [4, 4, 3]
    assert [name for batch in batches for name in batch.ids] == [IDS[index] for index in ORDER]
    mean, std = (np.array(values)[:, None, None] for values in BigEarthNetInfo.STATISTICS)
    for batch, at in zip(batches, (0, 4, 8), strict=True):
        for image, valid, label, number in zip(batch.images, batch.valid, batch.labels, ORDER[at:], strict=False):
            window = a_patch(number)[:, 1:41, 1:41]
            assert np.array_equal(valid.numpy(), (window != 0).any(0))
            expected = (window - mean) / std * valid.numpy()
            np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
            assert label.sum() == min(number % 3, 2)


def test_a_pass_begins_anywhere(folders) -> None:
    loader = a_loader(folders, "memory")
    whole = list(loader.training_batches(ORDER))
    for start in range(len(whole) + 1):
        assert_same(list(loader.training_batches(ORDER, start)), whole[start:])


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert shuffled(50, 1, 2) == shuffled(50, 1, 2)
    assert sorted(shuffled(50, 1, 2)) == list(range(50))
    assert len({tuple(shuffled(50, seed, epoch)) for seed in (1, 2) for epoch in (1, 2)}) == 4


# --------------------------------------------------------------------------- one shape, and parts


@pytest.mark.parametrize("published", [False, True])
def test_padding_is_rows_that_count_nowhere(folders, published: bool) -> None:
    loader = a_loader(folders, "memory", published)
    plain = list(loader.training_batches(ORDER))
    counted = loader.skipped_fill
    padded = list(loader.training_batches(ORDER, padded=True))
    assert {batch.images.shape for batch in padded} == {(SIZE, 7, 40, 40)}
    assert {batch.meta.shape for batch in padded} == {(SIZE, 4, 2)}
    last = padded[-1]
    assert len(last.ids) == 3
    assert not last.valid[3].any()
    assert last.images[3].isfinite().all()
    assert_same(rows(padded, slice(0, 3)), rows(plain, slice(0, 3)))
    assert_same(padded[:-1], plain[:-1])
    assert loader.skipped_fill == 2 * counted


@pytest.mark.parametrize("labels", ["none", "error"])
@pytest.mark.parametrize("count", [2, 4])
def test_parts_are_the_batch_cut_into_rows(folders, count: int, labels: str) -> None:
    loader = a_loader(folders, "memory", labels=labels)
    whole = list(loader.training_batches(ORDER, padded=True))
    skipped, loader.skipped_fill = loader.skipped_fill, 0
    parts = [list(loader.training_batches(ORDER, 0, Part(index, count), padded=True)) for index in range(count)]
    assert loader.skipped_fill == skipped == 2
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {len(share.images) for share in shares} == {SIZE // count}
        assert [name for share in shares for name in share.ids] == batch.ids
        for name in ("images", "meta", "valid", "labels"):
            values = [getattr(share, name) for share in shares]
            expected = getattr(batch, name)
            assert values == [None] * count if expected is None else torch.equal(torch.cat(values), expected), name
    assert parts[-1][-1].valid.any() == (count == 2)  # of four parts of the last batch of three, one has no patch
    shares = [list(loader.batches(ORDER, Part(index, 2))) for index in range(2)]
    assert_same(shares[0] + shares[1], list(loader.batches(ORDER)))


def test_shares_are_contiguous_and_whole() -> None:
    for size, count in ((8, 2), (7, 3), (1, 4), (0, 2)):
        shares = [list(range(size))[Part(index, count).of(size)] for index in range(count)]
        assert [number for share in shares for number in share] == list(range(size))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --------------------------------------------------------------------------- fill


def test_fill_stays_in_training_and_is_left_out_in_evaluation(folders) -> None:
    loader = a_loader(folders)
    batches = list(loader.training_batches(ORDER))
    without = {name for batch in batches for name, valid in zip(batch.ids, batch.valid, strict=True) if not valid.any()}
    assert without == {IDS[number] for number in FILL_ONLY}
    assert loader.skipped_fill == len(FILL_ONLY)
    assert all((batch.images[~batch.valid.flatten(1).any(1)] == 0).all() for batch in batches)

    loader.skipped_fill = 0
    evaluated = list(loader.batches(ORDER))
    assert [name for batch in evaluated for name in batch.ids] == [IDS[i] for i in ORDER if i not in FILL_ONLY]
    assert all(len(batch.images) == len(batch.labels) == len(batch.ids) for batch in evaluated)
    assert loader.skipped_fill == len(FILL_ONLY)


def test_published_fill_is_data(folders) -> None:
    loader = a_loader(folders, published=True)
    for batch in (*loader.training_batches(ORDER), *loader.batches(ORDER)):
        assert batch.valid.all()
    assert sum(len(batch.ids) for batch in loader.batches(ORDER)) == COUNT
    assert loader.skipped_fill == 0
    assert not any(batch.valid[len(batch.ids) :].any() for batch in loader.training_batches(ORDER, padded=True))


def test_empty_patches_are_told_from_dark_middles() -> None:
    pixels = np.stack([some_pixels(i, (7, 8, 8)) for i in range(5)])
    pixels[1] = 0
    pixels[2, :, 4, 4] = 0  # fill in the middle
    pixels[3] = 0
    pixels[3, 6, 7, 7] = 1  # one number in one corner of the last band
    pixels[4, :6] = 0  # one band is enough
    assert empty_patches(pixels).tolist() == [False, True, False, False, False]


# --------------------------------------------------------------------------- who reads


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_one_error_from_worker_processes_too(tmp_path, workers: int) -> None:
    write_bigearthnet(tmp_path, dict.fromkeys(IDS[:3], some_pixels()))
    (tmp_path / "images" / f"{IDS[2]}.tif").write_text("hello")
    loader = BatchLoader(BigEarthNetDatasetLS(tmp_path, "split.csv"), 2, workers, CPU)
    for batches in (loader.batches(), loader.training_batches(range(3))):
        with pytest.raises(DataError) as caught:
            list(batches)
        assert str(caught.value).startswith(str(tmp_path / "images" / f"{IDS[2]}.tif"))


def test_readers_leave_signals_to_the_main_process(sample) -> None:
    """A signal to the whole process group must not kill the readers under the loop."""
    loader = BatchLoader(BigEarthNetDatasetLS(sample, "bigearthnet-train.csv"), 16, 1, CPU)
    seen = 0
    for batch in loader.batches():
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGTERM)
        seen += len(batch.ids)
    assert seen == 192


def test_random_access_needs_no_reader_processes(folders) -> None:
    files, packed = (a_loader(folders, way).dataset for way in ("files", "pack"))
    assert isinstance(reader(files, 2, CPU, False), WorkerReader)
    assert isinstance(reader(packed, 2, CPU, False), DirectReader)
    assert isinstance(reader(packed, 2, CPU, "auto"), DirectReader)
    assert isinstance(reader(packed, 0, CPU, True), ResidentReader)
    assert not files.hold_in_memory(COUNT * 7 * 40 * 40 * 2 - 1)
    assert isinstance(reader(files, 2, CPU, False), WorkerReader)
    assert files.hold_in_memory(COUNT * 7 * 40 * 40 * 2)
    assert isinstance(reader(files, 2, CPU, False), DirectReader)


def test_resident_where_it_fits_on_a_gpu(folders, monkeypatch) -> None:
    """The decision only: there need not be a GPU here."""
    files, packed = (a_loader(folders, way).dataset for way in ("files", "pack"))
    gpu = torch.device("cuda")
    free = COUNT * 7 * 40 * 40 * 2 / RESIDENT_SHARE
    built = []
    monkeypatch.setattr("datasets.readers.ResidentReader", lambda dataset, device: built.append(dataset))
    for room, fits in ((free + 2, True), (free - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, room=room: (room, 10 * room))
        assert isinstance(reader(packed, 0, gpu, "auto"), DirectReader) is not fits
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    assert isinstance(reader(files, 0, gpu, "auto"), DirectReader)
    assert built == [packed]


@pytest.mark.parametrize("way", ["memory", "readers", "resident"])
def test_nothing_is_read_back_from_another_device(folders, way: str) -> None:
    """On a device whose tensors hold no numbers. What is stored travels as int16, which every device computes with."""
    dataset = a_loader(folders, "files" if way == "readers" else "memory").dataset
    loader = BatchLoader(dataset, SIZE, int(way == "readers"), ELSEWHERE, way == "resident")
    raw = next(iter(loader.reader.read([ORDER[:4]])))
    assert raw.pixels.dtype == torch.int16
    assert raw.empty.tolist() == [True, False, False, False]
    for batch in loader.training_batches(ORDER, padded=True):
        assert {value.device for value in batch[:3]} == {ELSEWHERE}
        assert (batch.images.shape, batch.images.dtype) == ((SIZE, 7, 40, 40), torch.float32)
        assert (batch.valid.shape, batch.valid.dtype) == ((SIZE, 40, 40), torch.bool)
    assert loader.skipped_fill == len(FILL_ONLY)


def test_automatic_batching_reads_once_a_batch(folders, monkeypatch) -> None:
    """`__getitems__` under torch's own DataLoader gives the batches of ours."""
    dataset = a_loader(folders).dataset
    reads, real = [], dataset.read
    monkeypatch.setattr(dataset, "read", lambda indices: reads.append(list(indices)) or real(indices))
    found = list(DataLoader(dataset, batch_size=SIZE, sampler=ORDER))
    assert reads == [ORDER[:4], ORDER[4:8], ORDER[8:]]
    expected = a_loader(folders).training_batches(ORDER)
    for sample, batch in zip(found, expected, strict=True):
        assert list(sample.id) == batch.ids
        for ours, theirs in zip(sample[:4], batch[:4], strict=True):
            assert torch.equal(ours, theirs)


# --------------------------------------------------------------------------- reading ahead


def reading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread is not threading.main_thread()}


def leave(items: Iterator) -> None:
    """Close a generator; in a thread, so that what would hang fails."""
    closing = threading.Thread(target=items.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_ahead_keeps_the_order_and_its_distance() -> None:
    made, asked = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            if number == 4:
                asked.set()
            yield number

    found = ahead(items(), 3)
    assert next(found) == 0
    assert asked.wait(10)  # 1 taken, 3 waiting, 1 in hand
    assert len(made) <= 5
    assert list(found) == list(range(1, 20))


def test_an_error_ahead_arrives_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield from (0, 1)
        raise DataError("file 2 is damaged")

    found = ahead(items(), 3)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(DataError, match="file 2 is damaged"):
        next(found)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_leaving_early_ends_the_thread(taken: int) -> None:
    before = reading_threads()
    found = ahead(iter(range(1000)), 2)
    for _ in range(taken):
        next(found)
    assert len(reading_threads() - before) == min(taken, 1)
    leave(found)
    assert reading_threads() == before


def test_a_training_pass_left_early_leaves_no_thread(folders) -> None:
    before = reading_threads()
    batches = BatchLoader(a_loader(folders, "memory").dataset, 1, 0, ELSEWHERE).training_batches(ORDER)
    next(batches)
    assert len(reading_threads() - before) == 1
    leave(batches)
    assert reading_threads() == before


# --------------------------------------------------------------------------- normalisation


def every_number() -> torch.Tensor:
    """(1, 7, 256, 256) uint16: all of them in every band, in another order in each."""
    numbers = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    return torch.from_numpy(np.stack([np.roll(numbers, 9 * band) for band in range(7)])[None])


@pytest.mark.parametrize("published", [False, True])
def test_bits_are_unsigned_numbers(published: bool) -> None:
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS, fill_is_data=published)
    pixels = every_number()
    pixels[:, :, 7] = 0
    before = pixels.clone()
    ours, theirs = normalize(pixels.view(torch.int16)), normalize(pixels)
    assert torch.equal(ours.images, theirs.images)
    assert torch.equal(ours.valid, theirs.valid)
    assert torch.equal(pixels, before)
    assert ours.valid.all() if published else not ours.valid[0, 7].any()
    mean, std = (np.array(values)[:, None, None] for values in BigEarthNetInfo.STATISTICS)
    numbers = pixels[0].numpy()
    expected = (numbers.astype(np.float64) - mean) / std * (True if published else (numbers != 0).any(0))
    # Rounding the mean and the difference to float32 costs half a unit in the last place of 65,535 each.
    bound = 65_536 * 2.0**-24 / std + 2.0**-23 * np.abs(expected)
    assert (np.abs(ours.images[0].numpy() - expected) <= bound).all()
    assert ours.images.max() > 10  # numbers above 32,767 are no negative ones
