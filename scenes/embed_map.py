"""Maps of embeddings in memory, as xarray has them: what stands behind `MOEMAE.embed_map` and `embed_series`.

The cells are those of `embed_scene.py`: one core (`scenes.embed`), other ways in and out.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.config import ModelConfig
from models.inference.embedder import Embedder
from models.inference.embedding import require_batch_size, require_choice
from models.pooling import MAP_POOLINGS, vector_width
from scenes.choices import map_pool
from scenes.embed import PixelReader, SceneEmbedder, WindowMetadata, tokens_for
from scenes.input.arrays import ArrayReader
from scenes.input.checks import check_numbers
from scenes.input.grids import GRID_MAPPING, SPACING, cell_centres, grid_mapping
from scenes.input.product import Scene, SceneOptions, find_scene
from scenes.input.reader import SceneReader
from scenes.input.virtual_files import path_of
from scenes.sensor_notes import band_notes, seen_otherwise
from scenes.windows import Frame, make_frame
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime
from utils.reporting import reporter
from utils.when_where import acquisition_time, stated_values

if TYPE_CHECKING:
    from models.moe_mae import MOEMAE

LAZY_ROWS = 8
"""Block rows of a piece of a lazy map: the windows that reach over a piece's upper border are computed twice."""
SAME_CELL = 1e-3
"""Share of a cell by which maps of a series may lie off each other."""


class _Source(NamedTuple):
    """A scene, wherever it is."""

    of: Scene | ArrayReader
    time: AcquisitionTime
    stated: Mapping[str, float]
    in_pieces: bool
    """Whether it is read only where it is needed."""

    def open(self, top: int, height: int) -> AbstractContextManager[PixelReader]:
        """A reader of some rows at least."""
        if isinstance(self.of, ArrayReader):
            return nullcontext(self.of.loaded(top, height) if self.in_pieces else self.of)
        return SceneReader(self.of)


class _Maker(NamedTuple):
    """Everything that makes cells of a source."""

    model: "MOEMAE"
    source: _Source
    frame: Frame
    normalize: ZScoreNormalize
    metadata: WindowMetadata
    pool: str
    batch_size: int
    min_clear: float

    def rows(self, first: int, end: int) -> np.ndarray:
        """(D, rows, columns) float32: the output's cells in the block rows from `first` to before `end`."""
        was_training, window = self.model.training, self.frame.window
        above = (first - 1) * window - self.frame.above  # windows reach over by less than a block row
        try:
            with self.source.open(above, (end - first + 2) * window) as reader:
                embedder = Embedder(self.model, tokens_for(self.pool))
                cells = SceneEmbedder(
                    reader,
                    self.frame,
                    embedder,
                    self.normalize,
                    self.metadata,
                    self.pool,
                    self.batch_size,
                    self.min_clear,
                )
                found = np.concatenate(list(cells.rows(first, end)))
        finally:
            self.model.train(was_training)
        rows, columns = self.output_rows(first, end), self.frame.output_columns
        start = first * self.frame.window // self.frame.cell
        return np.ascontiguousarray(found[rows.start - start : rows.stop - start, columns].transpose(2, 0, 1))

    def output_rows(self, first: int, end: int) -> slice:
        """Those rows of cells of some block rows, counted from the frame's first, that are in the output."""
        per_block, output = self.frame.window // self.frame.cell, self.frame.output_rows
        return slice(max(first * per_block, output.start), min(end * per_block, output.stop))


def embed_map(
    model: "MOEMAE",
    source: Any,
    *,
    stride: int | None,
    cell: int | None,
    when: Any,
    metadata: Mapping[str, Any] | None,
    bands: Sequence[Any] | None,
    pool: str | None,
    statistics: str,
    scale: tuple[float, float] | None,
    nodata: float | None,
    qa: str | Path | None,
    sensor: str | None,
    adjust_to_oli: str | None,
    min_clear: float,
    batch_size: int,
    lazy: bool | None,
) -> Any:
    """See `MOEMAE.embed_map`, whose work this is."""
    _require_xarray()
    config = model.config
    pool = pool or map_pool(config)
    require_choice("pool", pool, MAP_POOLINGS)
    require_choice("statistics", statistics, DATASETS)
    require_batch_size(batch_size)
    if not 0 < min_clear <= 1:
        raise ConfigError(f"min_clear: {min_clear} is no share above 0 and up to 1")
    if isinstance(source, str | Path):
        found = _of_path(source, config, bands, scale, nodata, qa, sensor, adjust_to_oli)
    else:
        if adjust_to_oli:
            raise ConfigError("adjust_to_oli: is for a path")
        found = _of_array(source, config, bands, scale, nodata, qa, sensor)
    found = found._replace(
        time=_agreed_time(found.time, when),
        stated={**found.stated, **{name: float(value[0]) for name, value in stated_values(metadata or {}, 1).items()}},
    )
    grid = found.of.grid
    frame = make_frame(grid, config.img_size, config.patch_size, stride or config.img_size, cell)
    normalize = ZScoreNormalize(DATASETS[statistics].STATISTICS, fill_is_data=config.published_behaviour)
    known = WindowMetadata(found.time, grid.crs is not None, found.stated)
    maker = _Maker(model, found, frame, normalize, known, pool, batch_size, min_clear)
    made = _lazy_cells(maker) if (found.in_pieces if lazy is None else lazy) else maker.rows(0, frame.blocks_down)
    return _labelled(made, maker, statistics)


def embed_series(model: "MOEMAE", sources: Any, *, when: Sequence[Any] | None, **options: Any) -> Any:
    """See `MOEMAE.embed_series`, whose work this is."""
    xarray = _require_xarray()
    if isinstance(sources, xarray.DataArray | xarray.Dataset):
        if "time" not in sources.dims:
            raise DataError("pixels: have no dimension 'time'; give a list of scenes, or use embed_map for one")
        sources = [sources.isel(time=number) for number in range(sources.sizes["time"])]
    elif isinstance(sources, str | Path):
        raise DataError(f"{sources}: is one scene; give a list of them, or use embed_map")
    if not len(sources):
        raise DataError("pixels: an empty list; give one scene a date")
    if when is not None and (isinstance(when, str) or len(when) != len(sources)):
        raise DataError(f"when: give one time a scene, {len(sources)} of them")
    times = [None] * len(sources) if when is None else list(when)
    maps = [model.embed_map(source, when=time, **options) for source, time in zip(sources, times, strict=True)]
    for number, one in enumerate(maps, 1):
        if "time" not in one.coords:
            raise DataError(f"scene {number}: nothing says when it was taken; give when=[…], one a scene")
        _require_one_lattice(maps[0], one, number)
    joined = xarray.concat(maps, dim="time", join="outer", combine_attrs="override")
    return joined.sortby("time").sortby("y", ascending=False)


def _of_path(
    path: str | Path,
    config: ModelConfig,
    bands: Sequence[Any] | None,
    scale: tuple[float, float] | None,
    nodata: float | None,
    qa: str | Path | None,
    sensor: str | None,
    adjust_to_oli: str | None,
) -> _Source:
    if nodata is not None:
        raise ConfigError("nodata: is for arrays; a file says its own (gdal_edit.py -a_nodata writes it)")
    if bands is not None and {type(band) for band in bands} not in ({int}, {str}):
        raise ConfigError(f"bands: {bands!r}; of a file, give their numbers, counted from 1, or the names of all")
    chosen = tuple(bands) if bands is not None else None
    qa_path = path_of(str(qa)) if qa is not None else None
    scene = find_scene(path_of(str(path)), SceneOptions(chosen, scale, qa_path, sensor=sensor, adjust=adjust_to_oli))
    for note in (*scene.notes, *band_notes(scene, config)):
        reporter.info(f"note         {note}")
    with SceneReader(scene) as reader:
        for doubt in check_numbers(reader):
            reporter.info(f"note         {doubt}")
    return _Source(scene, scene.time, scene.stated, in_pieces=False)


def _of_array(
    array: Any,
    config: ModelConfig,
    bands: Sequence[Any] | None,
    scale: tuple[float, float] | None,
    nodata: float | None,
    qa: str | Path | None,
    sensor: str | None,
) -> _Source:
    xarray = _require_xarray()
    if not isinstance(array, xarray.DataArray | xarray.Dataset):
        raise DataError(
            f"pixels: a map needs to know where they lie; give an xarray DataArray or Dataset, or a path, not "
            f"{type(array).__name__} (embed takes patches without a place)"
        )
    if qa is not None:
        raise ConfigError("qa: is for a path; give an array's QA_PIXEL as one of its bands, of that name")
    reader = ArrayReader(array, config, bands, scale, nodata, sensor)
    if notice := reader.notice(config):
        reporter.info(f"note         {notice}")
    when = reader.said.when
    time = acquisition_time(np.asarray(when).reshape(-1)[0]) if when is not None else AcquisitionTime()
    return _Source(reader, time, {}, in_pieces=bool(array.chunks))


def _agreed_time(known: AcquisitionTime, stated: Any) -> AcquisitionTime:
    """What a source says of its time, and what the caller adds; raises DataError where they differ."""
    added = acquisition_time(stated)
    for one, other in ((known.day, added.day), (known.clock, added.clock)):
        if None not in (one, other) and one != other:
            raise DataError(f"when: {stated}, but the scene says {known}; leave when out, or correct what is wrong")
    return AcquisitionTime(known.day or added.day, known.clock or added.clock)


def _lazy_cells(maker: _Maker) -> Any:
    """(D, rows, columns) as a dask array of pieces of some block rows."""
    try:
        import dask  # pyright: ignore[reportMissingImports] - optional
        import dask.array  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("lazy: needs dask; install it: pip install 'dask[array]'") from error
    width, columns = vector_width(maker.model.config, maker.pool), maker.frame.output_shape[1]
    pieces = []
    for first in range(0, maker.frame.blocks_down, LAZY_ROWS):
        end = min(first + LAZY_ROWS, maker.frame.blocks_down)
        rows = maker.output_rows(first, end)
        if rows.start < rows.stop:
            made = dask.delayed(maker.rows, pure=False)(first, end)
            shape = (width, rows.stop - rows.start, columns)
            pieces.append(dask.array.from_delayed(made, shape, np.float32))
    return dask.array.concatenate(pieces, axis=1)


def _labelled(cells: Any, maker: _Maker, statistics: str) -> Any:
    """(D, rows, columns) as a DataArray that knows where and when it is."""
    xarray = _require_xarray()
    frame, config, time = maker.frame, maker.model.config, maker.source.time
    coordinates: dict[str, Any] = {"band": np.arange(1, cells.shape[0] + 1)}
    attributes = {
        "long_name": "embedding",
        "pool": maker.pool,
        "stride": frame.stride,
        "cell": frame.cell,
        "min_clear": maker.min_clear,
        "statistics": statistics,
        "model_size": config.size,
    }
    if isinstance(maker.source.of, Scene):
        attributes |= seen_otherwise(maker.source.of)
    elif missing := maker.source.of.given.missing:
        attributes["missing_bands"] = list(missing)
    if frame.grid.georeferenced:
        transform = frame.output_transform
        coordinates["y"], coordinates["x"] = cell_centres(transform, *cells.shape[1:])
        if frame.grid.crs is not None:
            coordinates[GRID_MAPPING] = ((), 0, grid_mapping(frame.grid.crs, transform))
            attributes["grid_mapping"] = GRID_MAPPING
    if time.day is not None:
        text = f"{time.day}T{time.clock:%H:%M:%S}" if time.clock else str(time.day)
        coordinates["time"] = np.datetime64(text, "ns")
    return xarray.DataArray(cells, coordinates, ("band", "y", "x"), "embedding", attributes)


def _require_one_lattice(first: Any, other: Any, number: int) -> None:
    """Maps whose cells lie on each other, in one map projection."""
    same = first.attrs["cell"] == other.attrs["cell"] and ("y" in first.coords) == ("y" in other.coords)
    if same and "y" in first.coords:
        crs = [one[GRID_MAPPING].attrs["crs_wkt"] if GRID_MAPPING in one.coords else None for one in (first, other)]
        side = float(first.attrs["cell"]) * SPACING
        off = [(float(other[name][0]) - float(first[name][0])) / side for name in ("y", "x")]
        same = crs[0] == crs[1] and all(abs(value - round(value)) < SAME_CELL for value in off)
    if not same or ("y" not in first.coords and first.shape != other.shape):
        raise DataError(f"scene {number}: its grid is not that of the first; reproject all to one grid of 30 m")


def _require_xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ConfigError("maps in memory need xarray; install it: pip install xarray") from error
    return xarray
