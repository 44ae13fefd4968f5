"""One scene from files to results: what is made, in which order, and what is said about it."""

import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.checkpoint import load_model
from models.inference.embedder import Embedder
from models.masking import LEAST_VISIBLE
from models.pooling import vector_width
from scenes.embed import SceneEmbedder, WindowMetadata
from scenes.input.checks import check_numbers
from scenes.input.product import Scene, settings_fingerprint
from scenes.input.reader import SceneReader
from scenes.products.embedding_file import (
    FINGERPRINT_TAG,
    EmbeddingMap,
    map_statistics,
    provenance_tags,
    stored_fingerprint,
    write_embeddings,
)
from scenes.products.labelled import open_truth, write_labelled_cells
from scenes.products.land_cover import Probe, fitting_widths, load_probe, plot_land_cover, write_land_cover
from scenes.products.parquet import require_pyarrow, write_cells
from scenes.products.quick_look import plot_quick_look
from scenes.products.reconstruct import SceneReconstructor, write_reconstruction
from scenes.products.score import check_classes, score_land_cover
from scenes.products.similarity import cell_at, write_similarity
from scenes.row_store import RowStore
from scenes.windows import make_frame
from transformation.transformer import ZScoreNormalize
from utils.analysis_utils import save_figure
from utils.compilation import Compilation
from utils.data_config import DATASETS, BigEarthNetInfo, EuroSATInfo
from utils.devices import mixed_precision, select_device
from utils.errors import CheckpointError, ConfigError
from utils.files import check_writable, sha256, write_json
from utils.provenance import provenance
from utils.reporting import reporter

MAP_POOL = "patch_mean"
"""What a cell holds where nobody says."""
SCRATCH = ".unfinished"
"""Folder inside --out for rows and files that are not finished; gone when all is done."""
COMPILE_MIN_BATCHES = 2000
"""On a CPU `--compile auto` compiles for so many batches or more."""


class SceneSettings(NamedTuple):
    """The options of `embed_scene.py` that are not about finding the scene."""

    checkpoint: Path
    out: Path
    stride: int = 40
    cell: int | None = None
    pool: str | None = None
    dtype: str = "float16"
    batch_size: int = 64
    min_clear: float = 0.5
    probe: Path | None = None
    truth: Path | None = None
    similar_to: tuple[float, float] | None = None
    reconstruct: bool = False
    geoparquet: bool = False
    statistics: str | None = None
    metadata: str = "auto"
    device: str = "auto"
    amp: str = "false"
    compile: str = "auto"


class SceneRun:
    """All choices of a run, made and checked before anything is computed.

    Raises:
        UserError: for everything that can be known beforehand to fail.
    """

    def __init__(self, scene: Scene, settings: SceneSettings) -> None:
        self.scene, self.settings = scene, settings
        self.folder = check_writable(settings.out)
        self.scratch = self.folder / SCRATCH
        self.device = select_device(settings.device)
        if settings.checkpoint.is_dir():
            raise CheckpointError(f"{settings.checkpoint}: is a folder; give the checkpoint (.pth) itself")
        self.model = load_model(settings.checkpoint, device=self.device)
        config = self.model.config
        self.frame = make_frame(scene.grid, config.img_size, config.patch_size, settings.stride, settings.cell)
        self.checkpoint_sha256 = sha256(settings.checkpoint)
        self._say_scene()
        self.probe = load_probe(settings.probe, config) if settings.probe else None
        self._choose_by_probe()
        info = DATASETS[self.statistics_name]
        # With published behaviour fill is data, as the released weights were trained.
        self.normalize = ZScoreNormalize(info.STATISTICS, fill_is_data=config.published_behaviour)
        known = WindowMetadata(scene.time, scene.crs is not None, scene.stated)
        self.metadata = known if self.conditioned else WindowMetadata()
        self._check_places()
        self.fingerprint = settings_fingerprint(scene, self._identity())

    def execute(self) -> dict[str, Any]:
        """Make what is asked for; returns what `scene.json` says."""
        settings, started = self.settings, time.perf_counter()
        record: dict[str, Any] = {"scene": self.scene.name, "simulated": self.scene.simulated, **self._identity()}
        files = [self.folder / "embeddings.tif"]
        with SceneReader(self.scene) as reader:
            check_numbers(reader)
            record |= self._embed(reader, files[0])
            if settings.reconstruct:
                files.append(self._reconstruct(reader))
        embeddings = EmbeddingMap(files[0])
        statistics = map_statistics(embeddings)
        record["visible_cells"] = statistics.count
        files.append(save_figure(plot_quick_look(self.scene, embeddings, statistics), self.folder / "quick_look.png"))
        if self.truth:
            path = self.folder / "labelled_cells.npz"
            path, count = write_labelled_cells(
                path, embeddings, self.frame, self.truth, statistics.count, self._origin()
            )
            files += [path, path.with_suffix(".json")]
            reporter.info(f"labelled     {count:,} visible cells with a class of {self.truth.path}")
        if self.probe:
            record |= self._map_land_cover(self.probe, embeddings, files)
        if settings.similar_to:
            path = self.folder / "similarity.tif"
            files.append(write_similarity(path, embeddings, statistics, *settings.similar_to, self.scratch))
        if settings.geoparquet:
            files.append(write_cells(self.folder / "cells.parquet", embeddings, self.scene))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        record |= {"peak_memory_bytes": peak, "seconds": round(time.perf_counter() - started, 3)}
        record |= {"files": [path.name for path in files], "provenance": provenance(self.device)}
        files.append(write_json(self.folder / "scene.json", record))
        shutil.rmtree(self.scratch, ignore_errors=True)
        reporter.info(f"files        {self.folder}\n" + "\n".join(f"             {path.name}" for path in files))
        reporter.info(f"memory       {peak / 2**30:.2f} GiB at most, {record['seconds']:.0f} s in all")
        return record

    def _say_scene(self) -> None:
        scene, grid = self.scene, self.scene.grid
        kind = "simulated scene" if scene.simulated else "scene"
        reporter.info(f"{kind:12s} {scene.name}: {grid.height:,} x {grid.width:,} pixels, {scene.time}")
        for note in scene.notes:
            reporter.info(f"note         {note}")
        if self.model.config.published_behaviour and scene.time.day is not None:
            reporter.info(
                "note         published weights: the hour is the first digit of the time, as they were trained, and in "
                "training week and hour were those of a Sentinel-2 image, not of the Landsat scene"
            )

    def _choose_by_probe(self) -> None:
        """Pooling, statistics and metadata: as asked, else as the probe's embeddings were made."""
        settings, probe = self.settings, self.probe
        if probe and probe.checkpoint_sha256 not in (None, self.checkpoint_sha256):
            raise ConfigError(
                f"{probe.path}: was fitted on embeddings of another checkpoint than {settings.checkpoint}; give the "
                "one named in the JSON beside it"
            )
        if probe and probe.pool is None:
            reporter.info(
                f"note         nothing beside {probe.path.name} says how its embeddings were pooled: --pool decides"
            )
        elif probe and settings.pool not in (None, probe.pool):
            raise ConfigError(f"--pool {settings.pool}: {probe.path} was fitted on pool {probe.pool}; leave --pool out")
        self.pool = settings.pool or (probe.pool if probe else None) or MAP_POOL
        if probe and vector_width(self.model.config, self.pool) != probe.width:
            fitting = fitting_widths(self.model.config)[probe.width]
            raise ConfigError(f"{probe.path}: takes {probe.width:,} features, which --pool {fitting} gives; use that")
        self.statistics_name = settings.statistics or (probe.statistics if probe else None) or BigEarthNetInfo.NAME
        self.conditioned = settings.metadata == "auto"
        if probe and probe.dataset == EuroSATInfo.NAME and self.conditioned:
            self.conditioned = False
            reporter.info(
                "note         a EuroSAT probe: time and place are given to the model as missing, as they were for it, "
                "and its patches were magnified from 22 to 40 pixels, so it sees this scene at another scale"
            )

    def _check_places(self) -> None:
        settings, frame = self.settings, self.frame
        if settings.similar_to:
            cell_at(self.scene.crs, frame.output_transform, frame.output_shape, *settings.similar_to)
        self.truth = open_truth(settings.truth, self.scene.grid) if settings.truth else None
        if self.truth and self.probe:
            check_classes(self.truth, self.probe.classes)
        if settings.geoparquet:
            require_pyarrow()

    def _identity(self) -> dict[str, Any]:
        """Everything that the embeddings depend on beside the scene's files."""
        settings, config = self.settings, self.model.config
        return {
            "checkpoint": settings.checkpoint.name,
            "checkpoint_sha256": self.checkpoint_sha256,
            "published_behaviour": config.published_behaviour,
            "model_size": config.size,
            "pool": self.pool,
            "stride": settings.stride,
            "cell": self.frame.cell,
            "window": config.img_size,
            "dtype": settings.dtype,
            "min_clear": settings.min_clear,
            "least_visible": None if config.published_behaviour else LEAST_VISIBLE,
            "statistics": self.statistics_name,
            "time": str(self.scene.time),
            "metadata": self.metadata.record(config),
            "batch_size": settings.batch_size,
            "amp": settings.amp,
            "compile": settings.compile,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "before_final_norm": True,
            "routing_noise": False,
        }

    def _tags(self) -> dict[str, str]:
        about = {"scene": self.scene.name, "simulated": self.scene.simulated, **self._identity()}
        return provenance_tags(about) | {FINGERPRINT_TAG: self.fingerprint}

    def _origin(self) -> dict[str, Any]:
        """For the JSON beside labelled cells, in the form of `embed.compute_embed`."""
        identity = self._identity()
        return {
            "scene": self.scene.name,
            "simulated": self.scene.simulated,
            "dataset": "scene",
            "dataset_fingerprint": self.fingerprint,
            "checkpoint": {"path": str(self.settings.checkpoint), "sha256": self.checkpoint_sha256},
            "published_behaviour": identity["published_behaviour"],
            "pool": self.pool,
            "config": {"data": {"statistics": self.statistics_name}, "scene": identity},
        }

    def _embed(self, reader: SceneReader, path: Path) -> dict[str, Any]:
        """Compute and write the embeddings unless they are there."""
        if stored_fingerprint(path) == self.fingerprint:
            reporter.info(f"embeddings   {path}: there already, made alike")
            return {}
        settings, frame = self.settings, self.frame
        embedder = Embedder(
            self.model,
            "all",
            autocast=mixed_precision(self.device, "bf16" if settings.amp == "bf16" else False),
            compilation=Compilation.chosen(
                settings.compile,
                self.device,
                frame.window_count // settings.batch_size,
                COMPILE_MIN_BATCHES,
                reporter.info,
            ),
            batch_size=settings.batch_size,
        )
        scene_embedder = SceneEmbedder(
            reader, frame, embedder, self.normalize, self.metadata, self.pool, settings.batch_size, settings.min_clear
        )
        started = time.perf_counter()
        with RowStore(self.scratch, "cells", scene_embedder.record_shape, "float16", self.fingerprint) as store:
            if store.done:
                reporter.info(f"embeddings   going on after {store.done} of {frame.blocks_down} rows of windows")
            scene_embedder.run(store)
            seconds = time.perf_counter() - started
            write_embeddings(path, store, frame, self.scene.crs, settings.dtype, self._tags(), self.scratch)
        rate = scene_embedder.windows / max(seconds, 1e-9)
        rows, columns = frame.output_shape
        reporter.info(f"embeddings   {scene_embedder.windows:,} windows in {seconds:.0f} s ({rate:.0f} a second), "
              f"{rows} x {columns} cells of {frame.cell * 30} m")  # fmt: skip
        return {"windows": scene_embedder.windows, "windows_per_second": round(rate, 1)}

    def _reconstruct(self, reader: SceneReader) -> Path:
        path = self.folder / "reconstruction.tif"
        if stored_fingerprint(path) == self.fingerprint:
            return path
        config = self.model.config
        frame = make_frame(self.scene.grid, config.img_size, config.patch_size, config.img_size)
        maker = SceneReconstructor(reader, frame, self.model, self.normalize, self.metadata, self.settings.batch_size)
        with RowStore(self.scratch, "reconstruction", maker.record_shape, "uint16", self.fingerprint) as store:
            maker.run(store)
            tags = self._tags() | {"MOEMAE_MASK_RATIO": str(self.model.masking.ratio)}
            return write_reconstruction(path, store, frame, self.scene.sensor.bands, tags, self.scratch)

    def _map_land_cover(self, probe: Probe, embeddings: EmbeddingMap, files: list[Path]) -> dict[str, Any]:
        shares = write_land_cover(self.folder, embeddings, probe, self.scratch)
        legend = save_figure(
            plot_land_cover(self.folder / "land_cover.tif", probe.classes, shares),
            self.folder / "land_cover_legend.png",
        )
        files += [self.folder / "land_cover.tif", self.folder / "probabilities.tif", legend]
        record: dict[str, Any] = {"probe": probe.path.name, "land_cover": shares}
        if self.truth:
            scores = score_land_cover(self.folder / "land_cover.tif", self.truth, self.frame, probe.classes)
            record["truth"] = scores
            reporter.info(
                f"land cover   {scores['accuracy']:.1%} of {scores['cells']:,} cells right (most frequent class alone: "
                f"{scores['most_frequent_class']:.1%}), F1 macro {scores['f1_macro']:.1%}"
            )
        return record
