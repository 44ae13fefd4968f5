"""Embeddings of a scene: those of its windows, whatever the batches, the order, the stride and what is around it."""

import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from metadata_pairs import pairs
from scene_files import CLEAR, CLOUD, ORIGIN, SHADOW, embed, read, some_numbers, write_product

from models.checkpoint import load_model
from models.inference.embedder import Embedder
from models.inference.micro_batches import MicroBatches
from models.pooling import MAP_POOLINGS, WINDOW_POOLINGS, pool_tokens, vector_width
from scenes.embed import SceneEmbedder, WindowMetadata, token_fields, tokens_for
from scenes.input.product import find_scene
from scenes.input.reader import SceneReader
from scenes.row_store import RowStore
from scenes.windows import BlendedRows, make_frame
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import DataError
from utils.threads import torch_threads

ROUNDING = 2e-3
"""Half precision of numbers up to about 2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    qa = np.full((130, 170), CLEAR)
    qa[60:75, 100:130], qa[80:90, 90:120] = CLOUD, SHADOW
    return write_product(tmp_path_factory.mktemp("scene") / "a", some_numbers(), qa)


@pytest.fixture(scope="module")
def clear_folder(tmp_path_factory) -> Path:
    return write_product(tmp_path_factory.mktemp("scene") / "b", some_numbers(), np.full((130, 170), CLEAR))


@pytest.fixture(scope="module")
def made(tmp_path_factory, folder, checkpoint) -> Callable[..., Path]:
    """The embedding file of `folder` with some options, made once."""
    return functools.cache(lambda *options: embed(folder, checkpoint, tmp_path_factory.mktemp("made"), *options))


def frame_of(folder: Path, stride: int = 40, cell: int | None = None):
    return make_frame(find_scene(folder).grid, 40, 4, stride, cell)


@pytest.mark.parametrize("pool", MAP_POOLINGS)
def test_a_cell_is_the_pooled_window(tmp_path, folder, clear_folder, checkpoint, pool) -> None:
    path = embed(clear_folder, checkpoint, tmp_path / "out", "--pool", pool)
    frame = frame_of(clear_folder)
    row, column = 1, 2  # a window that lies inside the scene
    top, left = 40 * row - frame.above, 40 * column - frame.left
    numbers = some_numbers()[None, :, top : top + 40, left : left + 40]
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    images = normalize(torch.from_numpy(numbers)).images
    lat, lon = frame.centres(np.array([40 * row]), np.array([40 * column]))
    with torch.no_grad():
        encoded = load_model(checkpoint).encode(images, torch.from_numpy(pairs([27], [9], lat, lon)))
    expected = pool_tokens(encoded.pre_norm, pool, encoded.num_prefix)[0].numpy()
    cells = read(path)
    assert cells.shape == (len(expected), 4, 5)
    np.testing.assert_allclose(cells[:, row, column], expected, atol=ROUNDING)


@pytest.mark.parametrize("pool", MAP_POOLINGS)
def test_the_field_of_a_window_averages_to_its_pooled_vector(checkpoint, pool) -> None:
    model = load_model(checkpoint)
    with torch.no_grad():
        encoded = model.encode(torch.randn(3, 7, 40, 40, generator=torch.Generator().manual_seed(0)))
    fields = token_fields(encoded.pre_norm.flatten(1), pool, 10, 5)
    assert fields.shape == (3, 10, 10, vector_width(model.config, pool))
    torch.testing.assert_close(fields.mean((1, 2)), pool_tokens(encoded.pre_norm, pool, encoded.num_prefix))


@pytest.mark.parametrize("stride", [20, 40])
def test_the_batch_size_changes_nothing(tmp_path, folder, checkpoint, made, stride) -> None:
    files = [
        embed(folder, checkpoint, tmp_path / str(size), "--stride", stride, "--batch-size", size) for size in (2, 7)
    ]
    first = read(files[0])
    assert np.isfinite(first).any() and np.isnan(first).any()
    for other in (files[1], made("--stride", stride)):  # 64, which is all of them
        np.testing.assert_allclose(read(other), first, atol=ROUNDING)


def cells_of(
    folder: Path, embedder: Embedder, pool: str, stride: int, cell: int, batch_size: int = 16, blend: bool = False
) -> np.ndarray:
    """All cells of a scene that show anything, without a file; `blend`: patch by patch in any case."""
    frame, normalize = frame_of(folder, stride, cell), ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    with SceneReader(find_scene(folder)) as reader:
        embedding = SceneEmbedder(reader, frame, embedder, normalize, WindowMetadata(), pool, batch_size, 0.01)
        embedding._whole = embedding._whole and not blend
        return np.concatenate(list(embedding.rows(0, frame.blocks_down)))


@pytest.mark.parametrize("pool", MAP_POOLINGS)
def test_a_cell_that_is_a_window_needs_no_blending(folder, checkpoint, pool) -> None:
    """Also where a part of the window is hidden."""
    embedder = Embedder(load_model(checkpoint), "all")
    at_once, blended = (cells_of(folder, embedder, pool, 40, 40, blend=blend) for blend in (False, True))
    assert np.isfinite(at_once).all()
    np.testing.assert_allclose(at_once, blended, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "cell"), [(40, 40), (40, 20), (20, 40), (20, 4)])
@pytest.mark.parametrize("pool", WINDOW_POOLINGS)
def test_a_vector_of_the_window_needs_no_tokens_of_patches(folder, checkpoint, pool, stride, cell) -> None:
    assert tokens_for(pool) == pool and tokens_for("summary") == "all"
    model = load_model(checkpoint)
    alone, by_patch = (cells_of(folder, Embedder(model, made), pool, stride, cell) for made in (pool, "all"))
    np.testing.assert_allclose(alone, by_patch, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="are made of"):
        cells_of(folder, Embedder(model, "patch_mean"), pool, stride, cell)


class SaysThreads(Embedder):
    """Remembers which threads computed how many windows."""

    def __init__(self, model, pool: str, at_once: int) -> None:
        super().__init__(model, pool, backend="folded")
        self.at_once, self.seen = at_once, []

    def of_visible(self, images, meta, visible, bands=None):
        self.seen.append((threading.current_thread().name.split("_")[0], len(images)))
        return super().of_visible(images, meta, visible, bands)


@pytest.mark.parametrize("pool", ["summary", "cls"])
@pytest.mark.parametrize("stride", [20, 40])
def test_threads_that_share_windows_give_the_same_cells(folder, checkpoint, stride, pool) -> None:
    """To the bit, however many there are and however large a batch is."""
    model = load_model(checkpoint)
    plain = cells_of(folder, Embedder(model, tokens_for(pool)), pool, stride, stride)
    found = []
    for count, batch in ((1, 8), (2, 8), (3, 64)):
        with torch_threads(count):
            embedder = SaysThreads(model, tokens_for(pool), 2)
            found.append(cells_of(folder, embedder, pool, stride, stride, batch))
        names, sizes = zip(*embedder.seen, strict=True)
        assert set(sizes) <= {1, 2} and ("embedding" in names) == (count > 1)
    np.testing.assert_allclose(found[0], plain, rtol=1e-3, atol=1e-3)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_the_order_of_windows_changes_nothing() -> None:
    random = np.random.default_rng(0)

    class Grid:
        window, patch, cell, blocks_across = 40, 4, 4, 3

    windows = [
        (r, c, random.normal(size=(10, 10, 5)).astype(np.float32)) for r in range(0, 12, 2) for c in range(-8, 28)
    ]
    results = []
    for order in (range(len(windows)), random.permutation(len(windows))):
        blended = BlendedRows(Grid(), 5, 4)
        for index in order:
            blended.add(*windows[index], clear=0.5 + index % 3 / 4)
        results.append(blended.finish(np.ones((10, 30), np.float32), 0.5))
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


class Spy(Embedder):
    """Remembers what it was given and what it gave."""

    def __init__(self, model) -> None:
        super().__init__(model, "all")
        self.seen: dict[bytes, np.ndarray] = {}

    def of_visible(self, images, meta, visible, bands=None):
        vectors = super().of_visible(images, meta, visible, bands)
        for image, told, vector in zip(images, meta, vectors, strict=True):
            self.seen[image.numpy().tobytes() + told.numpy().tobytes()] = vector.numpy()
        return vectors


def test_windows_that_coincide_are_the_same_for_every_stride(tmp_path, folder, checkpoint) -> None:
    seen = {}
    for stride in (20, 40):
        spy, scene = Spy(load_model(checkpoint)), find_scene(folder)
        with SceneReader(scene) as reader, RowStore(tmp_path, str(stride), (10, 50, 24), "float16", "") as store:
            normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
            told = WindowMetadata(scene.time, True)
            frame = frame_of(folder, stride, 4)
            SceneEmbedder(reader, frame, spy, normalize, told, "patch_mean", 16, 0.5).run(store)
        seen[stride] = spy.seen
    assert len(seen[20]) > 3 * len(seen[40]) >= 3 * 20
    for key, vector in seen[40].items():
        np.testing.assert_allclose(seen[20][key], vector, atol=1e-5)


class SlowReader:
    """Says when and in which thread a scene is read; fails from a row on."""

    def __init__(self, reader: SceneReader, fails_from: float = np.inf) -> None:
        self.reader, self.fails_from = reader, fails_from
        self.events: list[tuple[str, int]] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self.reader, name)

    def read(self, top: int, *place: int) -> np.ndarray:
        if top >= self.fails_from:
            raise DataError("cannot be read here")
        self.threads.add(threading.get_ident())
        self.events.append(("read", top))
        return self.reader.read(top, *place)


def rows_of(
    folder: Path, checkpoint: Path, fails_from: float = np.inf, made: list[np.ndarray] | None = None
) -> tuple[list[np.ndarray], SlowReader]:
    """Block rows of a scene, which also go into `made` one by one, and what was read when."""
    frame, normalize = frame_of(folder), ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    with SceneReader(find_scene(folder)) as whole:
        reader = SlowReader(whole, fails_from)
        embedder = Embedder(load_model(checkpoint), "all")
        cells = SceneEmbedder(reader, frame, embedder, normalize, WindowMetadata(), "patch_mean", 16, 0.5)
        made = [] if made is None else made
        for row in cells.rows(0, frame.blocks_down):
            reader.events.append(("made", len(made)))
            made.append(row)
    return made, reader


class AtOnce:
    """In place of a thread: what is asked for is done there and then."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Callable, *given: object) -> Future:
        future: Future = Future()
        future.set_result(work(*given))
        return future


def test_the_next_stripe_is_read_while_one_is_computed(monkeypatch, folder, checkpoint) -> None:
    ahead, reader = rows_of(folder, checkpoint)
    assert len(ahead) == 4 and len(reader.threads) == 2
    tops = [top for kind, top in reader.events if kind == "read"]
    # Once each, and for the shares of the row above the first and below the last.
    assert reader.events.index(("made", 3)) == len(reader.events) - 1 and len(tops) == 2 + 5
    monkeypatch.setattr("scenes.embed.ThreadPoolExecutor", AtOnce)
    in_turn, reader = rows_of(folder, checkpoint)
    assert len(reader.threads) == 1
    for one, other in zip(ahead, in_turn, strict=True):
        assert one.tobytes() == other.tobytes()


def test_what_cannot_be_read_ends_the_rows_before_it(folder, checkpoint) -> None:
    made: list[np.ndarray] = []
    with pytest.raises(DataError, match="cannot be read here"):
        rows_of(folder, checkpoint, 60, made)
    whole, _ = rows_of(folder, checkpoint)
    assert len(made) == 1 and made[0].tobytes() == whole[0].tobytes()


@pytest.mark.parametrize("stride", [20, 40])
@pytest.mark.parametrize("around", [(40, 40), (13, 27)])
def test_a_scene_padded_by_fill_gives_the_same_inside(tmp_path, folder, checkpoint, made, stride, around) -> None:
    up, left = around
    numbers = np.pad(some_numbers(), ((0, 0), (up, 31), (left, 5)))
    qa = np.pad(read(next(folder.glob("*_QA_PIXEL.TIF")))[0], ((up, 31), (left, 5)), constant_values=1)
    origin = (ORIGIN[0] - 30 * left, ORIGIN[1] + 30 * up)
    padded = write_product(tmp_path / "padded", numbers, qa, origin=origin)
    other = embed(padded, checkpoint, tmp_path / "out", "--stride", stride)
    with rasterio.open(made("--stride", stride)) as small, rasterio.open(other) as large:
        move = (small.transform.c - large.transform.c) / small.transform.a
        down = (small.transform.f - large.transform.f) / small.transform.e
        assert move == int(move) and down == int(down)
        inside = large.read()[:, int(down) : int(down) + small.height, int(move) : int(move) + small.width]
        np.testing.assert_allclose(inside, small.read(), atol=ROUNDING)
        assert np.isfinite(large.read()).sum() == np.isfinite(small.read()).sum()


def test_cloud_shadow_and_fill_are_nodata_and_nothing_else(tmp_path, folder, checkpoint) -> None:
    path = embed(folder, checkpoint, tmp_path / "out", "--stride", 40, "--cell", 4)
    with rasterio.open(path) as file:
        cells, grid = file.read(), file.transform
        assert np.isnan(file.nodata) and file.crs == rasterio.CRS.from_epsg(32633)
    pixels = np.zeros((cells.shape[1] * 4, cells.shape[2] * 4))
    left, up = round((ORIGIN[0] - grid.c) / 30), round((grid.f - ORIGIN[1]) / 30)
    seen = read(next(folder.glob("*_QA_PIXEL.TIF")))[0] == CLEAR
    pixels[up : up + 130, left : left + 170] = seen
    shares = pixels.reshape(cells.shape[1], 4, cells.shape[2], 4).mean((1, 3))
    assert np.array_equal(np.isfinite(cells).all(axis=0), shares >= 0.5)
    assert np.array_equal(np.isfinite(cells).any(axis=0), shares >= 0.5)


def test_overlaps_leave_no_seams(tmp_path, clear_folder, checkpoint) -> None:
    """Across the borders of blocks, cells differ no more than elsewhere when windows overlap."""
    ratios = {}
    for stride in (8, 40):
        cells = read(embed(clear_folder, checkpoint, tmp_path / str(stride), "--stride", stride, "--cell", 4))
        steps = np.abs(np.diff(cells[:, 8:-8], axis=2)).mean((0, 1))
        first = frame_of(clear_folder, stride, 4).output_columns.start
        borders = (np.arange(len(steps)) + 1 + first) % 10 == 0
        ratios[stride] = steps[borders].mean() / steps[~borders].mean()
    assert ratios[8] < 1.4 < 5 < ratios[40]


def test_int8_is_within_half_a_step(tmp_path, folder, checkpoint, made) -> None:
    half = read(made("--stride", 40))
    path = embed(folder, checkpoint, tmp_path / "int8", "--dtype", "int8")
    with rasterio.open(path) as file:
        numbers, scales, offsets = file.read(), np.array(file.scales), np.array(file.offsets)
        assert (file.dtypes[0], file.nodata) == ("int8", -128)
    assert np.array_equal(numbers == -128, np.isnan(half))
    values = numbers * scales[:, None, None] + offsets[:, None, None]
    step = scales[:, None, None]
    assert (np.abs(values - half)[~np.isnan(half)] <= np.broadcast_to(0.51 * step, half.shape)[~np.isnan(half)]).all()


def test_the_file_is_cloud_optimised_and_says_where_it_comes_from(tmp_path, folder, checkpoint) -> None:
    path = embed(folder, checkpoint, tmp_path / "out", "--stride", 8)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.array_equal(file.read(), file.read().astype(np.float16), equal_nan=True)
        assert file.res == (120, 120)
        tags = file.tags()
        assert file.descriptions[0] == "embedding 0"
    assert tags["MOEMAE_POOL"] == "patch_mean" and tags["MOEMAE_STRIDE"] == "8"
    assert len(tags["MOEMAE_CHECKPOINT_SHA256"]) == len(tags["MOEMAE_FINGERPRINT"]) == 64
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "embeddings.tif",
        "quick_look.png",
        "scene.json",
    ]
    record = json.loads((tmp_path / "out" / "scene.json").read_text())
    assert record["windows"] > 100 and record["peak_memory_bytes"] > 0


@pytest.mark.faults
@pytest.mark.parametrize(("stride", "backend"), [(20, "torch"), (40, "torch"), (40, "folded")])
@pytest.mark.parametrize("appended", [0, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path, folder, checkpoint, made, monkeypatch, capsys, stride, backend, appended
):
    options = ("--stride", stride, "--backend", backend)
    with monkeypatch.context() as few:
        few.setattr(MicroBatches.__init__, "__defaults__", (2,))  # several parts a stripe
        killed_and_gone_on(tmp_path, folder, checkpoint, made(*options), monkeypatch, capsys, options, appended)


def killed_and_gone_on(tmp_path, folder, checkpoint, whole, monkeypatch, capsys, options, appended) -> None:
    append, count = RowStore.append, []

    def dying(self, record) -> None:
        if len(count) == appended:
            self._file.write(b"half a record")
            raise KeyboardInterrupt
        count.append(1)
        append(self, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RowStore, "append", dying)
        embed(folder, checkpoint, tmp_path / "killed", *options)
    assert not (tmp_path / "killed" / "embeddings.tif").exists()
    capsys.readouterr()
    path = embed(folder, checkpoint, tmp_path / "killed", *options)
    assert ("going on after 2 of 4" in capsys.readouterr().out) == (appended == 2)
    assert path.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "killed" / ".unfinished").exists()


def test_other_settings_start_anew_and_the_same_are_not_computed_again(tmp_path, folder, checkpoint, capsys) -> None:
    path = embed(folder, checkpoint, tmp_path / "out")
    first = path.read_bytes()
    assert "there already" not in capsys.readouterr().out
    embed(folder, checkpoint, tmp_path / "out")
    assert "there already" in capsys.readouterr().out
    assert path.read_bytes() == first
    embed(folder, checkpoint, tmp_path / "out", "--pool", "cls")
    assert "there already" not in capsys.readouterr().out
    assert path.read_bytes() != first


def test_a_model_that_gives_nan_is_named(tmp_path, clear_folder, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr(Embedder, "of_visible", lambda self, images, *_: torch.full((len(images), 105 * 24), torch.nan))
    with pytest.raises(DataError, match=r"NaN or infinity.*checkpoint"):
        embed(clear_folder, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out" / "embeddings.tif").exists()


def test_no_georeference_at_all(tmp_path, checkpoint) -> None:
    folder = write_product(tmp_path / "a", some_numbers(), crs=None, transform=rasterio.Affine.identity())
    cells = read(embed(folder, checkpoint, tmp_path / "out"))
    assert cells.shape == (24, 4, 5)
