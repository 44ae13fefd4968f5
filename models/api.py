"""What people call on a trained model: from a name to a model, from digital numbers to embeddings.

`embed` is the work of `models.inference`, which knows a model's form only. `from_pretrained` is the work of
`models.pretrained`, which builds this very class: it alone is imported when it is called. `embed_map` is the work of
`scenes`, which stands above and is not carried by every release: it is loaded by its name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.inference.embedding import embed
from utils.data_config import BigEarthNetInfo
from utils.entry_points import load_named
from utils.errors import ConfigError

if TYPE_CHECKING:
    from models.moe_mae import MOEMAE

DEFAULT_CROP = "center"
DEFAULT_STATISTICS = BigEarthNetInfo.NAME
DEFAULT_MIN_CLEAR = 0.5
DEFAULT_BATCH = 64
"""Patches at once: more are no faster on a CPU."""


class Interface:
    """The part of `MOEMAE` that needs nothing of this project to be known."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        file: str | None = None,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> "MOEMAE":
        """A trained model, in evaluation mode.

        Args:
            source: a checkpoint (`.pth`, ours or published); a folder that `export.py` wrote, or one with checkpoints;
                where no such path exists, a name: "xxs", "xxs_bands" and "s", which come with the project, "published",
                the authors' (`python -m models.checkpoint` lists them), or `owner/name` of a model on the Hugging Face
                hub. What is not here is fetched once (needs the package huggingface_hub). None: the default of the
                names, "s".
            file: which file of the folder or of the hub's model, where it is not clear.
            revision: branch, tag or commit on the hub.
            device: where the model goes.

        Raises:
            CheckpointError: one line with the path or name, when it is missing, damaged, unsafe or out of reach.
            ConfigError: when a package is missing.
        """
        from models.pretrained import load_pretrained

        return load_pretrained(source, file=file, revision=revision, device=device)

    def embed(
        self,
        pixels: Any,
        *,
        when: Any = None,
        lat: Any = None,
        lon: Any = None,
        metadata: Mapping[str, Any] | None = None,
        bands: Sequence[str] | None = None,
        pool: str | None = None,
        crop: str = DEFAULT_CROP,
        statistics: str = DEFAULT_STATISTICS,
        scale: tuple[float, float] | None = None,
        nodata: float | None = None,
        batch_size: int = DEFAULT_BATCH,
        backend: str = "torch",
        sensor: str | None = None,
    ) -> Any:
        """Embeddings of Landsat 4 to 9 patches, from the numbers as they stand in Collection-2 Level-2 files.

        The same numbers as `python -m embed.compute_embed` writes: cropped, normalised, conditioned on time and place,
        without routing noise and without gradient.

        Args:
            pixels: (N, 7, H, W) or one patch (7, H, W), or with some of the bands where names or the sensor say which;
                in numpy, torch or xarray (with a dimension `band`; or a Dataset with a variable a band); or a list of N
                patches of their own sizes; or a dict with one of these under `image`, such as torchgeo's samples.
                Hidden is what is 0 or has no number in any band that is given, what a numpy mask hides, and the fill
                value of `nodata` or of xarray's attributes. xarray's coordinates turn patches north up.
            when: acquisition time (UTC): datetime, ISO text or datetime64, one for all or one a patch. A date alone has
                no hour. None: xarray's coordinate `time`, else it is missing.
            lat, lon: of the patch centres, degrees (EPSG:4326), one for all or one a patch. None as for `when`.
            metadata: values of fields by name (`{"sun_elevation": 43.1}`, see `utils.metadata.FIELDS`), one for all or
                one a patch. They count before what follows from time and place; fields that this model does not have
                are ignored.
            bands: names of the bands given (SR_B4, B4 or STAC's red), in their order, where they are not all of the
                sensor's; one of them at least, others among them are left out. What stands for missing bands is the
                weights' `missing_bands` (docs/guide/sensors.md).
            pool: "cls", "mean" (of all tokens), "patch_mean", "meta_cls" (metadata and CLS side by side), "all"
                (every token) or another of `models.pooling.POOLINGS`; None takes the one that the weights name, "cls"
                for published ones.
            crop: "center" cuts the middle 40 x 40 pixels, "resize" scales to it.
            statistics: dataset whose mean and spread to normalise with, "bigearthnet_ls" or "eurosat_ls".
            scale: (A, B) where pixels are something else and reflectance = value * A + B; (1, 0) for reflectance. None:
                what xarray's attributes say (`scale_factor`, `add_offset`), else digital numbers.
            nodata: the number that stands for fill, where it is neither 0 nor NaN.
            batch_size: patches at once.
            backend: what computes on a CPU: "torch", "folded" (PyTorch with folded weights), "onnxruntime", "openvino",
                "onnxruntime-int8" (8-bit integers, not quite the same), or "auto", the fastest of those that are
                installed and give the same to 1e-4.
            sensor: "oli" (Landsat 8, 9), "etm" (7) or "tm" (4, 5), whose six bands have no coastal one and other
                numbers; or "msi", the twelve bands of Sentinel-2 at 30 m, for weights that have it (`model.sensors`).
                None: what xarray's attributes say (`platform`), or names of Sentinel-2's bands, else OLI.

        Returns:
            (N, D), or (D,) for one patch, float32: numpy for numpy, torch (on the input's device) for torch, xarray for
            xarray; for a dict the same dict with `embedding` added. NaN for patches of nothing but fill.

        Raises:
            DataError: for numbers, bands, sizes, times or places that the model does not know, with the fix.
            ConfigError: for an option's impossible value.
        """
        return embed(
            self,  # pyright: ignore[reportArgumentType] - this class is a part of `MOEMAE`, which is an encoder
            pixels,
            when=when,
            lat=lat,
            lon=lon,
            metadata=metadata,
            bands=bands,
            pool=pool,
            crop=crop,
            statistics=statistics,
            scale=scale,
            nodata=nodata,
            batch_size=batch_size,
            backend=backend,
            sensor=sensor,
        )

    def embed_map(
        self,
        source: Any,
        *,
        stride: int | None = None,
        cell: int | None = None,
        when: Any = None,
        metadata: Mapping[str, Any] | None = None,
        bands: Sequence[Any] | None = None,
        pool: str | None = None,
        statistics: str = DEFAULT_STATISTICS,
        scale: tuple[float, float] | None = None,
        nodata: float | None = None,
        qa: str | Path | None = None,
        sensor: str | None = None,
        adjust_to_oli: str | None = None,
        min_clear: float = DEFAULT_MIN_CLEAR,
        batch_size: int = DEFAULT_BATCH,
        lazy: bool | None = None,
    ) -> Any:
        """A georeferenced map of embeddings: the same cells as `embed_scene.py` writes, as an xarray DataArray.

        Args:
            source: a Landsat 4 to 9 scene: an xarray DataArray (band, y, x) or Dataset with a variable a band, in
                memory or of dask, whose coordinates are metres of a map projection at 30 m; a band or variable of the
                name QA_PIXEL hides cloud and shadow. Or a path or address that `embed_scene.py --scene` takes.
            stride: pixels between windows of 40: 4, 8, 20 or 40. None: 40.
            cell: pixels along a cell. None: 40 where windows do not overlap, else 4.
            when: acquisition time (UTC), where the source does not say it.
            metadata: values of fields by name, as `embed` takes them, for the whole scene.
            bands: an array's: names, as `embed` takes them. A stacked GeoTIFF's: which are the sensor's,
                from 1, or the names of all.
            pool: one of `models.pooling.MAP_POOLINGS`; None: the weights' own, where it holds
                the tokens of patches, else "summary"; of weights that name none "patch_mean".
            statistics, scale, batch_size: as `embed` takes them; batches are of windows.
            nodata: as `embed` takes it, for arrays.
            qa: a QA_PIXEL file beside a path.
            sensor: as `embed` takes it; of a path, where its files do not say it.
            adjust_to_oli: "rma" or "ols": reflectance of ETM+ and TM in a path is turned into OLI's by the lines of Roy
                et al. 2016.
            min_clear: share of a cell that must be visible, above 0 and up to 1.
            lazy: whether to return a dask array that is computed in pieces of whole rows when it is asked for (needs
                dask). None: where the source is one.

        Returns:
            (band, y, x) float32, one band a number of the embedding, NaN where too little is visible; coordinates of
            the cells' centres, `spatial_ref` and `time` where they are known.

        Raises:
            DataError: for a scene that the model does not know, with the fix.
            ConfigError: for an option's impossible value, or when xarray or dask is missing.
        """
        return self._of_scenes("scenes.embed_map:embed_map")(
            self,
            source,
            stride=stride,
            cell=cell,
            when=when,
            metadata=metadata,
            bands=bands,
            pool=pool,
            statistics=statistics,
            scale=scale,
            nodata=nodata,
            qa=qa,
            sensor=sensor,
            adjust_to_oli=adjust_to_oli,
            min_clear=min_clear,
            batch_size=batch_size,
            lazy=lazy,
        )

    def embed_series(self, sources: Any, *, when: Sequence[Any] | None = None, **options: Any) -> Any:
        """Maps of embeddings of one place at several times, on one lattice of cells, in the order of time.

        Args:
            sources: what `embed_map` takes, one a date; or an xarray DataArray or Dataset with a dimension `time`.
            when: acquisition times (UTC), one a source, where they do not say them.
            options: the others of `embed_map`.

        Returns:
            (time, band, y, x) float32: the ground that any of them covers, NaN where one has nothing.

        Raises:
            DataError: as `embed_map`; for a source without a time; for grids that are not of one lattice.
            ConfigError: as `embed_map`.
        """
        return self._of_scenes("scenes.embed_map:embed_series")(self, sources, when=when, **options)

    @staticmethod
    def _of_scenes(entry_point: str) -> Any:
        try:
            return load_named(entry_point)
        except ModuleNotFoundError as error:
            if error.name is None or not entry_point.startswith(error.name):
                raise
            raise ConfigError("maps of scenes need the whole project, not only the model: pip install moemae") from None
