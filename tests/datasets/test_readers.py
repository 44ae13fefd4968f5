"""Who reads the patches of a batch: processes, memory, a device, a thread ahead; errors and signals on the way."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import loading
import pytest
import torch
from loading import COUNT, CPU, ELSEWHERE, FILL_ONLY, IDS, ORDER, SIZE, a_loader
from tiny import some_pixels, write_bigearthnet
from torch.utils.data import DataLoader

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from datasets.readers import RESIDENT_SHARE, DirectReader, ResidentReader, WorkerReader, ahead, reader
from utils.errors import DataError

folders = loading.folders


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
