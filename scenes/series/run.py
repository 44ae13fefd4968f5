"""A series from files to results: every date by the run of one scene, and what is made of all of them."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenes.input.virtual_files import shown
from scenes.outputs import RECORD as SCENE_RECORD
from scenes.outputs import SCRATCH, OutputSet
from scenes.products.embedding_file import (
    EmbeddingMap,
    MapStatistics,
    joined_statistics,
    map_statistics,
    provenance_tags,
    stored_fingerprint,
)
from scenes.products.zarr_group import ZARR_GROUP, require_zarr, write_zarr_series
from scenes.run import LoadedModel, SceneRun
from scenes.series.change import (
    CHANGE_MAP,
    CHANGE_PICTURE,
    Asked,
    Components,
    asked_of,
    find_change,
    record_of,
    write_change,
)
from scenes.series.change_picture import plot_change
from scenes.series.dates import Date
from scenes.series.lattice import common_lattice, write_placed
from scenes.series.settings import SeriesSettings
from scenes.series.strip import plot_strip
from scenes.series.vector import VECTOR_MAP, SeriesVectors
from scenes.windows import make_frame
from utils.analysis_utils import save_figure
from utils.errors import ConfigError, DataError
from utils.files import check_writable, make_folder
from utils.memory import peak_memory
from utils.parsing import parse_json
from utils.provenance import provenance
from utils.reporting import reporter

RECORD = "series.json"
PICTURE = "quick_look.png"


class SeriesRun:
    """All choices of a run, made and checked before anything is computed.

    Args:
        dates: the scenes, earliest first.
        settings: what is asked for.

    Raises:
        UserError: for everything that can be known beforehand to fail.
    """

    def __init__(self, dates: Sequence[Date], settings: SeriesSettings) -> None:
        self.dates, self.settings = dates, settings
        if (settings.out / SCENE_RECORD).exists():
            raise ConfigError(f"{settings.out}: holds results of embed_scene.py; choose another --out")
        self.asked = asked_of(settings, dates)
        if settings.format != "cog":
            require_zarr(f"--format {settings.format}")
        self.folder = check_writable(settings.out)
        inputs = [path for path in (settings.checkpoint, settings.like) if path is not None]
        self.outputs = OutputSet(self.folder, inputs, RECORD, _files_of_earlier(self.folder))
        loaded = LoadedModel.of(settings.checkpoint, settings.device)
        self.vectors = SeriesVectors(settings.vector, loaded.weights) if settings.vector else None
        if self.vectors:
            self.settings = settings = replace(settings, pool=self.vectors.pool_for(settings.pool))
        config = loaded.model.config
        frames = [
            make_frame(date.scene.grid, config.img_size, config.patch_size, settings.stride, settings.cell)
            for date in dates
        ]
        names = [shown(date.scene.path) for date in dates]
        self.lattice = common_lattice(frames, names, settings.extent, settings.like)
        work = self.folder / SCRATCH / "dates"
        self.runs = [SceneRun(date.scene, settings.of_date(work / date.stamp), loaded) for date in dates]

    def execute(self) -> dict[str, Any]:
        """Make what is asked for; returns what `series.json` says."""
        started = time.perf_counter()
        for run in self.runs:
            run.check()
        maps = [self._map_of(number) for number in range(len(self.dates))]
        parts = [map_statistics(one) for one in maps]
        statistics = joined_statistics(parts)
        if not statistics.count:
            raise DataError(
                f"{self.folder}: no cell of any date is visible by {self.settings.min_clear:.0%} or more; give other "
                "scenes, or a lower --min-clear"
            )
        files = [save_figure(plot_strip(self.dates, maps, statistics), self.outputs.new(PICTURE))]
        if self.settings.format != "zarr":
            files += [one.path for one in maps]
        if self.settings.format != "cog":
            files.append(self._write_zarr(maps))
        record = self._record(parts)
        if self.asked:
            record |= self._compare(self.asked, maps, parts, files)
        if self.vectors:
            record["vector"] = self.vectors.record()
            tags = provenance_tags({"vector": record["vector"], **self._identity()})
            path = self.outputs.new(VECTOR_MAP)
            files.append(self.vectors.write(path, maps, self.dates, tags, self.outputs.scratch))
        return self._publish(record, files, time.perf_counter() - started)

    def _map_of(self, number: int) -> EmbeddingMap:
        """The cells of a date on the lattice; those that are there already, made alike, are kept."""
        date, run = self.dates[number], self.runs[number]
        name = f"embeddings_{date.stamp}.tif"
        reporter.info(f"date         {number + 1} of {len(self.dates)}: {date.text}")
        for path in (self._home / name, *self.outputs.existing(name)):
            if stored_fingerprint(path) == run.fingerprint and self.lattice.same_as(found := EmbeddingMap(path)):
                reporter.info(f"embeddings   {path.name}: there already, made alike")
                if self.settings.format != "zarr":
                    self.outputs.keep(path)
                return found
        made, target = run.cells(), make_folder(self._home) / name
        if self.lattice.same_as(made):
            made.path.replace(target)
        else:
            write_placed(target, made, self.lattice, self.outputs.scratch)
        shutil.rmtree(run.folder, ignore_errors=True)
        return EmbeddingMap(target)

    @property
    def _home(self) -> Path:
        """Where dates are put: with what becomes the results, or with what goes when all is done."""
        return self.outputs.staged if self.settings.format != "zarr" else self.outputs.scratch / "cells"

    def _write_zarr(self, maps: Sequence[EmbeddingMap]) -> Path:
        path = self.outputs.new(ZARR_GROUP)
        shutil.rmtree(path, ignore_errors=True)  # of a run that was killed while it wrote
        about = {"scenes": [date.scene.name for date in self.dates], **self._identity()}
        return write_zarr_series(path, maps, [date.moment for date in self.dates], about)

    def _compare(
        self, asked: Asked, maps: Sequence[EmbeddingMap], parts: Sequence[MapStatistics], files: list[Path]
    ) -> dict[str, Any]:
        """The map and the picture of a change; returns what the record says of it."""
        two = [self.dates[asked.before], self.dates[asked.after]]
        change = find_change(Components(maps, parts, self.outputs.scratch), asked)
        record = record_of(change, asked, self.dates)
        tags = provenance_tags({"change": record, "scenes": [date.scene.name for date in two], **self._identity()})
        path = self.outputs.new(CHANGE_MAP)
        files.append(write_change(path, change, maps[0], tags, self.outputs.scratch))
        figure = plot_change(two, change, maps[0], asked.fdr)
        files.append(save_figure(figure, self.outputs.new(CHANGE_PICTURE)))
        if change.significant is not None:
            reporter.info(
                f"change       {record['significant_cells']:,} of {record['cells']:,} cells at a false discovery "
                f"rate of {asked.fdr:.0%}; p by {len(asked.null)} pairs of dates"
            )
        return {"change": record}

    def _identity(self) -> dict[str, Any]:
        """What the cells of all dates depend on alike."""
        first, *others = (run.identity() for run in self.runs)
        return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

    def _record(self, parts: Sequence[MapStatistics]) -> dict[str, Any]:
        lattice, transform = self.lattice, self.lattice.transform
        shared = self._identity()
        dates = []
        for date, run, part in zip(self.dates, self.runs, parts, strict=True):
            own = {key: value for key, value in run.identity().items() if key not in (*shared, "time")}
            dates.append(
                {
                    "time": date.text,
                    "scene": date.scene.name,
                    "product": date.scene.product,
                    "sensor": date.scene.sensor.title,
                    "simulated": date.scene.simulated,
                    "notes": list(date.scene.notes),
                    "visible_cells": part.count,
                    "fingerprint": run.fingerprint,
                    **own,
                }
            )
        ground = {
            "crs": lattice.crs.to_string() if lattice.crs else None,
            "transform": list(transform)[:6],
            "rows": lattice.height,
            "columns": lattice.width,
        }
        return {"dates": dates, "lattice": ground, "format": self.settings.format, **shared}

    def _publish(self, record: dict[str, Any], files: list[Path], seconds: float) -> dict[str, Any]:
        """Put all files in place and say which they are; returns the whole record."""
        self._drop_unasked(files)
        peak = peak_memory()
        record |= {"peak_memory_bytes": peak, "seconds": round(seconds, 3)}
        record |= {"files": sorted(path.name for path in files), "provenance": provenance(self.runs[0].device)}
        gone = self.outputs.publish(record)
        if gone:
            reporter.info(f"removed      {', '.join(gone)} of an earlier run, which this one does not make")
        listed = "\n".join(f"             {name}" for name in (*record["files"], RECORD))
        reporter.info(f"files        {self.folder}\n{listed}")
        memory = "unknown" if peak is None else f"{peak / 2**30:.2f} GiB at most"
        reporter.info(f"memory       {memory}, {record['seconds']:.0f} s in all")
        return record

    def _drop_unasked(self, files: list[Path]) -> None:
        """Remove what a killed run with other settings has left among the unfinished files."""
        wanted = {path.name for path in files}
        for path in self.outputs.staged.iterdir():
            if path.name not in wanted:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _files_of_earlier(folder: Path) -> list[str]:
    """Names of the files that an earlier run says it has made in a folder."""
    try:
        named = parse_json((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return [name for name in named if isinstance(name, str) and Path(name).name == name]
    except (OSError, ValueError, KeyError, TypeError):
        return []
