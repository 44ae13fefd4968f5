"""Batches: the same bits whoever reads them, padding, parts, fill, and normalisation of bare bits."""

import loading
import numpy as np
import pytest
import torch
from loading import COUNT, FILL_ONLY, IDS, ORDER, SIZE, WAYS, a_loader, a_patch
from tiny import some_pixels

from datasets.loader import Part, shuffled
from datasets.patches import Batch
from datasets.readers import DirectReader, ResidentReader, WorkerReader, empty_patches
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo

folders = loading.folders


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name, a, b in zip(Batch._fields, mine, other, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def rows(batches: list[Batch], numbers: slice) -> list[Batch]:
    """The same rows of every batch."""
    return [Batch(*(None if value is None else value[numbers] for value in batch)) for batch in batches]


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
            assert np.array_equal(valid.numpy(), (window != 0).all(0))
            expected = ((window - mean) / std)[:, valid.numpy()]
            np.testing.assert_allclose(image.numpy()[:, valid.numpy()], expected, atol=1e-5)
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
    pixels[3, :, 7, 7] = 1  # a number in one corner of every band
    pixels[4, :6] = 0  # one band is not enough
    assert empty_patches(pixels).tolist() == [False, True, False, False, True]


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
    expected = (numbers.astype(np.float64) - mean) / std
    seen = np.ones(numbers.shape[1:], bool) if published else (numbers != 0).all(0)
    # Rounding the mean and the difference to float32 costs half a unit in the last place of 65,535 each.
    bound = 65_536 * 2.0**-24 / std + 2.0**-23 * np.abs(expected)
    assert (np.abs(ours.images[0].numpy() - expected) <= bound)[:, seen].all()
    assert ours.images.max() > 10  # numbers above 32,767 are no negative ones
