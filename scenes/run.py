"""One scene from files to results: what is made, in which order, and what is said about it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from models.inference.embedder import Embedder
from models.inference.runtimes import compiling_asked, require_known
from models.masking import LEAST_VISIBLE
from models.pretrained import load_with_path
from scenes.choices import choose
from scenes.embed import SceneEmbedder, WindowMetadata, tokens_for
from scenes.input.checks import check_numbers
from scenes.input.product import Scene, settings_fingerprint
from scenes.input.reader import SceneReader
from scenes.input.virtual_files import shown
from scenes.labels.raster import open_labels
from scenes.outputs import RECORD, OutputSet
from scenes.products.embedding_file import (
    FINGERPRINT_TAG,
    WITHOUT_NUMBER,
    EmbeddingMap,
    MapStatistics,
    map_statistics,
    provenance_tags,
    stored_fingerprint,
    without_number_in,
    write_embeddings,
)
from scenes.products.labelled import open_truth, write_labelled_cells
from scenes.products.land_cover import Probe, load_probe, make_land_cover
from scenes.products.parquet import require_pyarrow, write_cells
from scenes.products.quick_look import plot_quick_look
from scenes.products.reconstruct import SceneReconstructor, write_reconstruction
from scenes.products.score import check_classes, score_land_cover
from scenes.products.similarity import cell_at, write_similarity
from scenes.products.stac_item import STAC_ITEM, require_described, write_item
from scenes.products.styles import style_ramp, style_true_colour
from scenes.products.zarr_group import ZARR_GROUP, require_zarr, write_zarr
from scenes.row_store import RowStore
from scenes.sensor_notes import band_notes, probe_notes, seen_otherwise
from scenes.settings import SceneSettings
from scenes.windows import make_frame
from transformation.transformer import ZScoreNormalize
from utils.analysis_utils import save_figure
from utils.compilation import Compilation
from utils.data_config import DATASETS
from utils.devices import mixed_precision, select_device
from utils.errors import ConfigError, DataError
from utils.files import check_writable, sha256
from utils.memory import peak_memory
from utils.provenance import provenance
from utils.reporting import reporter

if TYPE_CHECKING:
    from models.moe_mae import MOEMAE

COMPILE_MIN_BATCHES = 2000
"""On a CPU `--compile auto` compiles for so many batches or more."""


class LoadedModel(NamedTuple):
    """A model on its device, and the file that it came from."""

    model: "MOEMAE"
    weights: Path
    sha256: str

    @classmethod
    def of(cls, checkpoint: Path, device: str) -> "LoadedModel":
        """Weights by path or name, on the device of that name."""
        model, weights = load_with_path(checkpoint, device=select_device(device))
        return cls(model, weights, sha256(weights))


class SceneRun:
    """All choices of a run, made and checked before anything is computed.

    Args:
        scene: what is embedded.
        settings: what is asked for.
        loaded: the model that `settings` names, where it is at hand.

    Raises:
        UserError: for everything that can be known beforehand to fail.
    """

    def __init__(self, scene: Scene, settings: SceneSettings, loaded: LoadedModel | None = None) -> None:
        self.scene, self.settings = scene, settings
        self.folder = check_writable(settings.out)
        beside = settings.probe.with_suffix(".json") if settings.probe else None
        inputs = (settings.checkpoint, settings.probe, beside, settings.truth, settings.labels)
        self.outputs = OutputSet(self.folder, [path for path in inputs if path is not None])
        self.scratch = self.outputs.scratch
        require_known(settings.backend)
        self.device = select_device(settings.device)
        self.autocast = mixed_precision(self.device, "bf16" if settings.amp == "bf16" else False)
        loaded = loaded or LoadedModel.of(settings.checkpoint, settings.device)
        self.model, self.weights, self.checkpoint_sha256 = loaded
        config = self.model.config
        # A polygon labels small cells; a window's whole 1,200 m have one class only where fields are that large.
        cell = settings.cell or (config.patch_size if settings.labels else None)
        self.frame = make_frame(scene.grid, config.img_size, config.patch_size, settings.stride, cell)
        self._say_scene()
        self.probe = load_probe(settings.probe, config, settings.trust_pickle) if settings.probe else None
        self.choices = choose(settings, self.probe, config, self.weights)
        for note in probe_notes(scene, self.probe):
            reporter.info(f"note         {note}")
        info = DATASETS[self.choices.statistics]
        # With published behaviour fill is data, as the released weights were trained.
        self.normalize = ZScoreNormalize(info.STATISTICS, fill_is_data=config.published_behaviour)
        known = WindowMetadata(scene.time, scene.crs is not None, scene.stated)
        self.metadata = known if self.choices.conditioned else WindowMetadata()
        self._check_places()
        self.fingerprint = settings_fingerprint(scene, self.identity())

    def execute(self) -> dict[str, Any]:
        """Make what is asked for; returns what `scene.json` says."""
        settings, started = self.settings, time.perf_counter()
        record: dict[str, Any] = {"scene": self.scene.name, "simulated": self.scene.simulated, **self.identity()}
        with SceneReader(self.scene) as reader:
            self._check_numbers(reader)
            embeddings, made = self._cells(reader)
            record |= made
            files = [embeddings.path]
            statistics = map_statistics(embeddings)
            self._require_visible(statistics)
            record["visible_cells"] = statistics.count
            if settings.reconstruct:
                files.append(self._reconstruct(reader))
                files.append(style_true_colour(self.outputs.new("reconstruction.qml"), self.scene.sensor))
            if self.labels:
                record["labels"] = self._fit_labels(reader, embeddings, statistics.count, files)
        figure = plot_quick_look(self.scene, embeddings, statistics)
        files.append(save_figure(figure, self.outputs.new("quick_look.png")))
        if self.truth:
            path, count = write_labelled_cells(
                self.outputs.new("labelled_cells.npz"),
                embeddings,
                self.frame,
                self.truth,
                statistics.count,
                self._origin(),
            )
            files += [path, path.with_suffix(".json")]
            reporter.info(f"labelled     {count:,} visible cells with a class of {self.truth.path}")
        if self.probe:
            record |= self._map_land_cover(self.probe, embeddings, files)
        if settings.similar_to:
            path = self.outputs.new("similarity.tif")
            files.append(write_similarity(path, embeddings, statistics, *settings.similar_to, self.scratch))
            files.append(style_ramp(path.with_suffix(".qml"), -1.0, 1.0))
        if settings.geoparquet:
            files.append(write_cells(self.outputs.new("cells.parquet"), embeddings, self.scene))
        if settings.zarr:
            files.append(write_zarr(self.outputs.new(ZARR_GROUP), embeddings))
        if settings.stac:
            files.append(write_item(self.outputs.new(STAC_ITEM), embeddings, self.scene, self.identity(), files))
        return self._publish(record, files, time.perf_counter() - started)

    def check(self) -> None:
        """Look at some of the scene's numbers. Raises DataError for those that the model does not know."""
        with SceneReader(self.scene) as reader:
            self._check_numbers(reader)

    def cells(self) -> EmbeddingMap:
        """The embeddings alone, made or found; what a killed run has left goes on."""
        with SceneReader(self.scene) as reader:
            return self._cells(reader)[0]

    def _check_numbers(self, reader: SceneReader) -> None:
        for doubt in check_numbers(reader):
            reporter.info(f"note         {doubt}")

    def _cells(self, reader: SceneReader) -> tuple[EmbeddingMap, dict[str, Any]]:
        """The embeddings, and what the record says of making them."""
        embeddings, made = self._embed(reader)
        return embeddings, self._say_without_number(embeddings) | made

    def _say_without_number(self, embeddings: EmbeddingMap) -> dict[str, Any]:
        """What the scene's files hide without saying so; the value is for the record."""
        found = without_number_in(embeddings)
        for name, count in found.items():
            reporter.info(
                f"note         {name}: {count:,} pixels hold NaN or an infinite number, or one beyond all reflectance: "
                "taken for hidden"
            )
        return {WITHOUT_NUMBER: found} if found else {}

    def _require_visible(self, statistics: MapStatistics) -> None:
        if not statistics.count:
            self.outputs.discard()
            raise DataError(
                f"{shown(self.scene.path)}: no cell is visible by {self.settings.min_clear:.0%} or more (fill, cloud, "
                "shadow); give another scene, or a lower --min-clear"
            )

    def _publish(self, record: dict[str, Any], files: list[Path], seconds: float) -> dict[str, Any]:
        """Put all files in place and say which they are; returns the whole record."""
        peak = peak_memory()
        record |= {"peak_memory_bytes": peak, "seconds": round(seconds, 3)}
        names = [path.name for path in files]
        record |= {"files": names, "provenance": provenance(self.device)}
        gone = self.outputs.publish(record)
        if gone:
            reporter.info(f"removed      {', '.join(gone)} of an earlier run, which this one does not make")
        listed = "\n".join(f"             {name}" for name in (*names, RECORD))
        reporter.info(f"files        {self.folder}\n{listed}")
        memory = "unknown" if peak is None else f"{peak / 2**30:.2f} GiB at most"
        reporter.info(f"memory       {memory}, {record['seconds']:.0f} s in all")
        return record

    def _say_scene(self) -> None:
        scene, grid = self.scene, self.scene.grid
        kind = "simulated scene" if scene.simulated else "scene"
        reporter.info(f"{kind:12s} {scene.name}: {grid.height:,} x {grid.width:,} pixels, {scene.time}")
        for note in (*scene.notes, *band_notes(scene, self.model.config)):
            reporter.info(f"note         {note}")
        if self.model.config.published_behaviour and scene.time.day is not None:
            reporter.info(
                "note         published weights: the hour is the first digit of the time, as they were trained, and in "
                "training week and hour were those of a Sentinel-2 image, not of the Landsat scene"
            )

    def _check_places(self) -> None:
        settings, frame = self.settings, self.frame
        if settings.similar_to:
            cell_at(self.scene.crs, frame.output_transform, frame.output_shape, *settings.similar_to)
        self.truth = open_truth(settings.truth, self.scene.grid) if settings.truth else None
        for name in ("probe", "truth"):
            if settings.labels and getattr(settings, name):
                raise ConfigError(f"--labels and --{name} exclude each other: labels make a probe, and score it")
        if settings.column and not settings.labels:
            raise ConfigError("--column names a column of --labels; give both")
        self.labels = open_labels(settings.labels, settings.column, self.scene.grid) if settings.labels else None
        if self.truth and self.probe:
            check_classes(self.truth, self.probe.classes)
        if settings.geoparquet:
            require_pyarrow()
        if settings.zarr:
            require_zarr()
        if settings.stac:
            require_described(self.scene)

    def identity(self) -> dict[str, Any]:
        """Everything that the embeddings depend on beside the scene's files."""
        settings, config = self.settings, self.model.config
        return {
            "checkpoint": self.weights.name,
            "checkpoint_sha256": self.checkpoint_sha256,
            "published_behaviour": config.published_behaviour,
            "model_size": config.size,
            "pool": self.choices.pool,
            "stride": settings.stride,
            "cell": self.frame.cell,
            "window": config.img_size,
            "dtype": settings.dtype,
            "min_clear": settings.min_clear,
            "least_visible": None if config.published_behaviour else LEAST_VISIBLE,
            "statistics": self.choices.statistics,
            "time": str(self.scene.time),
            "metadata": self.metadata.record(config),
            "batch_size": settings.batch_size,
            "amp": "false" if self.autocast is None else settings.amp,
            "compile": settings.compile,
            **({} if settings.backend == "torch" else {"backend": settings.backend}),
            **seen_otherwise(self.scene),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "before_final_norm": True,
            "routing_noise": False,
        }

    def _tags(self) -> dict[str, str]:
        about = {"scene": self.scene.name, "simulated": self.scene.simulated, **self.identity()}
        return provenance_tags(about) | {FINGERPRINT_TAG: self.fingerprint}

    def _origin(self) -> dict[str, Any]:
        """For the JSON beside labelled cells, in the form of `embed.compute_embed`."""
        identity = self.identity()
        return {
            "scene": self.scene.name,
            "simulated": self.scene.simulated,
            "dataset": "scene",
            "dataset_fingerprint": self.fingerprint,
            "checkpoint": {"path": str(self.weights), "sha256": self.checkpoint_sha256},
            "published_behaviour": identity["published_behaviour"],
            "pool": self.choices.pool,
            "config": {"data": {"statistics": self.choices.statistics}, "scene": identity},
        }

    def _embed(self, reader: SceneReader) -> tuple[EmbeddingMap, dict[str, Any]]:
        """Compute and write the embeddings unless they are there; the second value is for the record."""
        for path in self.outputs.existing("embeddings.tif"):
            if stored_fingerprint(path) == self.fingerprint:
                reporter.info(f"embeddings   {self.folder / path.name}: there already, made alike")
                return EmbeddingMap(self.outputs.keep(path)), {}
        settings, frame = self.settings, self.frame
        embedder = Embedder(
            self.model,
            tokens_for(self.choices.pool),
            autocast=self.autocast,
            compilation=Compilation.chosen(
                compiling_asked(settings.backend, settings.compile),
                self.device,
                frame.window_count // settings.batch_size,
                COMPILE_MIN_BATCHES,
                reporter.info,
            ),
            batch_size=settings.batch_size,
            backend=settings.backend,
            patches=frame.window_count,
        )
        scene_embedder = SceneEmbedder(
            reader,
            frame,
            embedder,
            self.normalize,
            self.metadata,
            self.choices.pool,
            settings.batch_size,
            settings.min_clear,
        )
        path = self.outputs.new("embeddings.tif")
        with RowStore(self.scratch, "cells", scene_embedder.record_shape, "float16", self.fingerprint) as store:
            if store.done:
                reporter.info(f"embeddings   going on after {store.done} of {frame.blocks_down} rows of windows")
            scene_embedder.announce(frame.window_count * (1 - store.done / frame.blocks_down))
            started = time.perf_counter()
            scene_embedder.run(store)
            seconds = time.perf_counter() - started
            found = reader.without_number.counts()
            tags = self._tags() | (provenance_tags({WITHOUT_NUMBER: found}) if found else {})
            write_embeddings(path, store, frame, self.scene.crs, settings.dtype, tags, self.scratch)
        rate = scene_embedder.windows / max(seconds, 1e-9)
        rows, columns = frame.output_shape
        reporter.info(f"embeddings   {scene_embedder.windows:,} windows in {seconds:.0f} s ({rate:.0f} a second), "
              f"{rows} x {columns} cells of {frame.cell * 30} m")  # fmt: skip
        return EmbeddingMap(path), {"windows": scene_embedder.windows, "windows_per_second": round(rate, 1)}

    def _reconstruct(self, reader: SceneReader) -> Path:
        for path in self.outputs.existing("reconstruction.tif"):
            if stored_fingerprint(path) == self.fingerprint:
                return self.outputs.keep(path)
        path = self.outputs.new("reconstruction.tif")
        config = self.model.config
        frame = make_frame(self.scene.grid, config.img_size, config.patch_size, config.img_size)
        maker = SceneReconstructor(reader, frame, self.model, self.normalize, self.metadata, self.settings.batch_size)
        with RowStore(self.scratch, "reconstruction", maker.record_shape, "uint16", self.fingerprint) as store:
            maker.run(store)
            tags = self._tags() | {"MOEMAE_MASK_RATIO": str(self.model.masking.ratio)}
            return write_reconstruction(path, store, frame, self.scene.sensor.bands, tags, self.scratch)

    def _fit_labels(
        self, reader: SceneReader, embeddings: EmbeddingMap, visible: int, files: list[Path]
    ) -> dict[str, Any]:
        """A probe on the user's labels, which is then the one of the map."""
        from scenes.labels.run import LabelWork, fit_labels  # with scikit-learn, which maps without labels do without

        if self.labels is None:
            raise ValueError("there are no labels")
        folder = self.outputs.new("labelled_cells.npz").parent
        work = LabelWork(self.labels, reader, self.frame, embeddings, visible, self._origin(), folder, self.scratch)
        fitted = fit_labels(work)
        self.probe = load_probe(fitted.probe, self.model.config)
        files += fitted.files
        return fitted.record

    def _map_land_cover(self, probe: Probe, embeddings: EmbeddingMap, files: list[Path]) -> dict[str, Any]:
        path = self.outputs.new("land_cover.tif")
        shares, made = make_land_cover(self.scene, path, embeddings, probe, self.scratch)
        files += made
        record: dict[str, Any] = {"probe": probe.path.name, "land_cover": shares}
        if self.truth:
            scores = score_land_cover(path, self.truth, self.frame, probe.classes)
            record["truth"] = scores
            reporter.info(
                f"land cover   {scores['accuracy']:.1%} of {scores['cells']:,} cells right (most frequent class alone: "
                f"{scores['most_frequent_class']:.1%}), F1 macro {scores['f1_macro']:.1%}"
            )
        return record
