"""The loop: windows of a scene through the model, block row by block row, to cells on disk.

Memory holds two block rows of cells and the pixels of two more, whatever the scene's height. A batch never reaches over
the end of a stripe, so a run that goes on at any stripe makes the same batches, and with the same number of threads the
same bits. While a stripe is computed, a thread reads the next one; where windows do not overlap, a backend with threads
of its own begins with that one at once.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
import torch
from torch import Tensor
from tqdm import tqdm

from models.config import ModelConfig
from models.inference.embedder import Embedder
from models.inference.micro_batches import Parts
from models.masking import visible_unless_all
from models.pooling import WINDOW_POOLINGS, pool_every_patch, vector_width
from scenes.input.reader import WithoutNumber
from scenes.row_store import RowStore
from scenes.windows import BlendedRows, Frame, patch_shares
from transformation.present_bands import PresentBands
from transformation.transformer import ZScoreNormalize
from utils.errors import DataError
from utils.metadata import FIELDS, Acquisitions, AcquisitionTime, encode_metadata, metadata_columns
from utils.reporting import reporter

LEAST_TIMED = 1000
"""Windows from which on a batch is timed beforehand; fewer take less than a minute."""
LONG_SECONDS = 60
"""Work that takes longer is announced with an estimate."""


def duration(seconds: float) -> str:
    """`90 seconds`, `3 minutes` or `1.5 hours`."""
    if seconds < 120:
        return f"{round(seconds, -1):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


class WindowMetadata(NamedTuple):
    """What is known of a scene's windows beside their pixels."""

    time: AcquisitionTime = AcquisitionTime()
    place: bool = False
    """Whether the windows' centres are known."""
    stated: Mapping[str, float] = MappingProxyType({})
    """Values of fields that hold for the whole scene and count before what follows from time and place."""

    def encode(self, frame: Frame, tops: np.ndarray, lefts: np.ndarray, config: ModelConfig) -> Tensor:
        """(n, F, 2) of n windows, as the model of that config takes them."""
        lat, lon = frame.centres(tops, lefts) if self.place else (np.full(len(tops), np.nan),) * 2
        columns = metadata_columns(Acquisitions.of([self.time], lat, lon), self.stated)
        return torch.from_numpy(encode_metadata(columns, config.meta_fields, config.published_behaviour))

    def record(self, config: ModelConfig) -> dict[str, Any]:
        """What a model of that config is conditioned on, as plain values for the run's record; None: not known."""
        hour, as_trained = self.time.hour, FIELDS["hour"].published
        if hour is not None and config.published_behaviour and as_trained is not None:
            hour = int(as_trained(torch.tensor(hour)))
        stated = {name: value for name, value in self.stated.items() if name in config.meta_fields}
        return {"week": self.time.week, "hour": hour, "place": self.place, **stated}


class Stripe(NamedTuple):
    """The pixels around some windows, and those windows that show any ground."""

    pixels: np.ndarray  # (bands given, h, w) uint16
    top: int  # of the pixels, in the frame
    left: int
    tops: np.ndarray  # (n,) in the frame, row by row
    lefts: np.ndarray  # (n,)
    clear: np.ndarray  # (n,) visible share
    shares: np.ndarray  # (patches down, patches across) visible share of each patch

    def only(self, part: slice) -> "Stripe":
        """With some of its windows."""
        return self._replace(tops=self.tops[part], lefts=self.lefts[part], clear=self.clear[part])

    def images(self, side: int) -> Tensor:
        """(n, bands given, side, side) uint16 of the windows."""
        views = np.lib.stride_tricks.sliding_window_view(self.pixels, (side, side), axis=(1, 2))
        cut = views[:, self.tops - self.top, self.lefts - self.left]
        return torch.from_numpy(np.ascontiguousarray(cut.swapaxes(0, 1)))

    def window_shares(self, side: int, patch: int) -> np.ndarray:
        """(n, side, side) visible shares of the windows' patches."""
        views = np.lib.stride_tricks.sliding_window_view(self.shares, (side, side))
        return views[(self.tops - self.top) // patch, (self.lefts - self.left) // patch]


class PixelReader(Protocol):
    """What pixels are read from: `scenes.input.reader.SceneReader` or `scenes.input.arrays.ArrayReader`."""

    @property
    def where(self) -> str:
        """For messages."""
        ...

    @property
    def given(self) -> PresentBands:
        """Which of the model's bands it has."""
        ...

    @property
    def without_number(self) -> WithoutNumber: ...

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(bands given, height, width) uint16 numbers from row `top` and column `left`; 0 where nothing is seen."""
        ...


def read_stripe(reader: PixelReader, frame: Frame, stripe: int, end: int | None = None) -> Stripe:
    """Read what the windows of a stripe need; `end` as `Frame.windows_of` takes it."""
    tops, lefts = frame.windows_of(stripe, end)
    top, left = (int(tops[0]), int(lefts[0])) if len(tops) else (stripe * frame.window, int(lefts[0]))
    height = int(tops[-1]) + frame.window - top if len(tops) else 0
    width = int(lefts[-1]) + frame.window - left
    pixels = reader.read(top - frame.above, left - frame.left, height, width)
    side, step = frame.window // frame.patch, frame.stride // frame.patch
    if not len(tops):
        none = tops.astype(np.float32)
        return Stripe(pixels, top, left, tops, tops, none, none[:, None])
    shares = patch_shares((pixels != 0).all(axis=0), frame.patch)
    clear = np.lib.stride_tricks.sliding_window_view(shares, (side, side))[::step, ::step].mean((2, 3))
    rows, columns = np.nonzero(clear > 0)
    return Stripe(pixels, top, left, tops[rows], lefts[columns], clear[rows, columns], shares)


def tokens_for(pool: str) -> str:
    """The pooling that an `Embedder` needs for cells of `pool`: itself where a window has one vector, else "all"."""
    return pool if pool in WINDOW_POOLINGS else "all"


def token_fields(flat: Tensor, pool: str, side: int, num_prefix: int, visible: Tensor | None = None) -> Tensor:
    """Tokens of whole windows to a vector for every patch, whose mean over the window is `pool_tokens` of it.

    Args:
        flat: (n, tokens * width), all tokens before the final norm.
        pool: one of `models.pooling.MAP_POOLINGS`.
        side: patches along a window.
        num_prefix: tokens before those of the patches.
        visible: (n, side * side) bool; None means all.

    Returns:
        (n, side, side, width of the pooling)
    """
    tokens = flat.unflatten(1, (num_prefix + side**2, -1))
    return pool_every_patch(tokens, pool, num_prefix, visible).unflatten(1, (side, side))


class Begun(NamedTuple):
    """A stripe that has been read, and what has been begun of it."""

    stripe: Stripe
    shares: np.ndarray  # (patches down, patches across) visible share of the patches of its block row
    vectors: Parts[np.ndarray] | None
    """Those of all its windows; None: nothing is begun yet."""


class SceneEmbedder:
    """From windows to cells.

    Args:
        reader: of the pixels.
        frame: their windows.
        embedder: with pool `tokens_for(pool)` or "all", on its device.
        normalize: digital numbers to z-scores.
        metadata: time and place that the windows are conditioned on.
        pool: see `token_fields`.
        batch_size: windows at once; of frames without overlap a backend with threads of its own takes whole stripes.
        min_clear: share of a cell that must be visible.
    """

    def __init__(
        self,
        reader: PixelReader,
        frame: Frame,
        embedder: Embedder,
        normalize: ZScoreNormalize,
        metadata: WindowMetadata,
        pool: str,
        batch_size: int,
        min_clear: float,
    ) -> None:
        if embedder.pool not in ("all", tokens_for(pool)):
            raise ValueError(f"cells of {pool} are made of {tokens_for(pool)}, not of {embedder.pool}")
        self.reader, self.frame, self.embedder, self.normalize = reader, frame, embedder, normalize
        self.metadata, self.pool, self.batch_size, self.min_clear = metadata, pool, batch_size, min_clear
        self.device = next(embedder.model.parameters()).device
        self._whole = frame.stride == frame.cell == frame.window
        """Whether every cell is a window: nothing is blended then."""
        self.windows = 0
        """Windows computed so far."""

    @property
    def record_shape(self) -> tuple[int, int, int]:
        """(cells down, cells across, width) of a block row."""
        per_block = self.frame.window // self.frame.cell
        return per_block, self.frame.cells[1], vector_width(self.embedder.model.config, self.pool)

    def run(self, store: RowStore) -> None:
        """Compute every block row that is not in the store yet.

        Raises:
            DataError: where the model gives numbers that cannot be stored.
        """
        frame, first = self.frame, store.done
        if store.notes:
            self.reader.without_number.earlier = dict(store.notes)
        for row, cells in enumerate(self.rows(first, frame.blocks_down), first):
            # A run that goes on after this row reads it again, for the windows that reach into it; none the last.
            again = None if row + 1 == frame.blocks_down else row * frame.window - frame.above
            store.notes = self.reader.without_number.counts(above=again)
            store.append(self._half(cells))

    def rows(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Cells of the block rows from `first` to before `end`, each (cells down, cells across, width) float32.

        Raises:
            DataError: where the model gives no number.
        """
        if first == end:
            return
        unit = self.frame.window if self._whole else self.frame.patch
        blended = BlendedRows(self.frame, self.record_shape[-1], unit)
        # The row above is completed for nothing (it is there already, or outside), but what it hides is counted again.
        shares = self._shares(first - 1)
        # A block row is complete after the next stripe, whose windows reach back into it.
        numbers = tqdm(range(first, end + 1), desc="embedding", unit="row", leave=False, disable=None)
        threads = torch.get_num_threads()  # of this thread: that of others is not what was asked for
        with ThreadPoolExecutor(1, "reading") as reading:
            ahead = reading.submit(self._begin, first, end, threads)
            try:
                for number in numbers:
                    stripe, shares_below, vectors = ahead.result()
                    if number < end:
                        ahead = reading.submit(self._begin, number + 1, end, threads)
                    self._add_stripe(blended, number, stripe, vectors)
                    cells = blended.finish(shares, self.min_clear)
                    if number > first:
                        yield cells
                    shares = shares_below
            finally:  # nobody waits for the next one if this one has failed
                if ahead.exception() is None and (vectors := ahead.result().vectors) is not None:
                    vectors.cancel()

    def _begin(self, number: int, end: int, threads: int) -> Begun:
        """Read a stripe; begin with its windows where threads share all of them out and what they make is small."""
        with rasterio.Env():  # GDAL's messages are this thread's own, and else go to stderr
            stripe = read_stripe(self.reader, self.frame, number, end)
            # Windows that do not overlap are those of the block row itself.
            alike = self.frame.stride == self.frame.window and len(stripe.shares)
            shares = stripe.shares if alike else self._shares(number)
            whole = self.embedder.at_once and self._whole and len(stripe.tops)
            return Begun(stripe, shares, self._vectors(stripe, threads) if whole else None)

    def _vectors(self, stripe: Stripe, threads: int) -> Parts[np.ndarray]:
        """Vectors of a stripe's windows in the making, in parts as `_vectors_of` gives them."""
        meta = self.metadata.encode(self.frame, stripe.tops, stripe.lefts, self.embedder.model.config)

        def vectors(part: slice) -> np.ndarray:
            return self._vectors_of(stripe.only(part), meta[part].to(self.device))

        count = len(stripe.tops)
        return Parts(vectors, count, self.embedder.at_once or count, threads)

    def _add_stripe(self, blended: BlendedRows, number: int, stripe: Stripe, begun: Parts[np.ndarray] | None) -> None:
        """Run the windows of a stripe; the upper block row of `blended` is the one above the stripe's."""
        unit, count = blended.unit, len(stripe.tops)
        first_row = (number - 1) * (self.frame.window // unit)
        step = self.batch_size if begun is None else count
        for start in range(0, count, step):
            some = stripe.only(slice(start, start + step))
            parts = self._vectors(some, torch.get_num_threads()) if begun is None else begun
            vectors = np.concatenate(parts.results())
            self.windows += len(vectors)
            for top, left, clear, field in zip(some.tops, some.lefts, some.clear, vectors, strict=True):
                blended.add(top // unit - first_row, left // unit, field, clear)

    def _vectors_of(self, stripe: Stripe, meta: Tensor) -> np.ndarray:
        """A vector for every patch of a few windows, (n, side, side, width).

        Where cells are windows, for every window instead, (n, 1, 1, width): the mean over its patches, weighted by
        their visible shares.
        """
        frame, config = self.frame, self.embedder.model.config
        side = frame.window // frame.patch
        images, valid = self.reader.given.normalized(stripe.images(frame.window).to(self.device), self.normalize)
        visible = visible_unless_all(valid, config.patch_size)
        bands = self.reader.given.mask(len(images), self.device)
        found = self.embedder.of_visible(images, meta, visible, bands)
        if self.embedder.pool != "all":
            fields = found[:, None, None]
        else:
            fields = token_fields(found, self.pool, side, config.num_prefix, visible)
            if self._whole:
                shares = torch.from_numpy(stripe.window_shares(side, frame.patch)).to(self.device).flatten(1, 2)
                shares = (shares / shares.sum(1, keepdim=True)).unsqueeze(1)
                fields = (shares @ fields.flatten(1, 2)).unsqueeze(1)
        if not fields.isfinite().all():
            raise DataError(f"{self.reader.where}: the model gives NaN or infinity here; check the checkpoint")
        fields = fields.cpu()
        return (fields if self._whole else fields.expand(-1, side, side, -1)).numpy()

    def announce(self, windows: float) -> None:
        """Say how long so many windows will take, where that is long."""
        if windows < LEAST_TIMED:
            return
        seconds = windows * self.seconds_a_window()
        if seconds > LONG_SECONDS:
            reporter.info(
                f"time         about {duration(seconds)} for up to {windows:,.0f} windows; interrupted, the same "
                "command goes on"
            )

    def seconds_a_window(self) -> float:
        """Measured on one batch of empty windows, after one that warms the model up."""
        config = self.embedder.model.config
        images = torch.zeros(self.batch_size, config.in_channels, config.img_size, config.img_size, device=self.device)
        nowhere = WindowMetadata().encode(self.frame, np.zeros(1, int), np.zeros(1, int), config)
        meta = nowhere.expand(self.batch_size, -1, -1).to(self.device)
        for _ in range(2):
            started = time.perf_counter()
            self.embedder(images, meta).cpu()
        return (time.perf_counter() - started) / self.batch_size

    def _shares(self, block: int) -> np.ndarray:
        """Clear shares of the patches of a block row."""
        frame = self.frame
        width = frame.blocks_across * frame.window
        pixels = self.reader.read(block * frame.window - frame.above, -frame.left, frame.window, width)
        return patch_shares((pixels != 0).all(axis=0), frame.patch)

    def _half(self, cells: np.ndarray) -> np.ndarray:
        """(…) float32 to float16."""
        with np.errstate(over="ignore"):
            half = cells.astype(np.float16)
        if np.isinf(half).any() or not np.array_equal(np.isnan(half), np.isnan(cells)):
            raise DataError(f"{self.reader.where}: embeddings too large for half precision; check the checkpoint")
        return half
