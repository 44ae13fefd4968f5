"""What people call on a trained model: from a name to a model, from digital numbers to embeddings.

`embed` is the work of `models.inference`, which knows a model's form only. `from_pretrained` is the work of
`models.pretrained`, which builds this very class: it alone is imported when it is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.inference.embedding import embed
from utils.data_config import BigEarthNetInfo

if TYPE_CHECKING:
    from models.moe_mae import MOEMAE

DEFAULT_CROP = "center"
DEFAULT_STATISTICS = BigEarthNetInfo.NAME
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
                where no such path exists, a name: "xxs" and "s", which come with the project, "published", the authors'
                (`python -m models.checkpoint` lists them), or `owner/name` of a model on the Hugging Face hub. What is
                not here is fetched once (needs the package huggingface_hub). None: the default of the names, "s".
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
    ) -> Any:
        """Embeddings of Landsat 8 or 9 patches, from the numbers as they stand in Collection-2 Level-2 files.

        The same numbers as `python -m embed.compute_embed` writes: cropped, normalised, conditioned on time and place,
        without routing noise and without gradient.

        Args:
            pixels: (N, 7, H, W) or one patch (7, H, W), in numpy, torch or xarray (with a dimension `band`; or a
                Dataset with a variable a band); or a list of N patches of their own sizes; or a dict with one of
                these under `image`, such as torchgeo's samples. Hidden is what is 0 or has no number in any band, what
                a numpy mask hides, and the fill value of `nodata` or of xarray's attributes. xarray's coordinates turn
                patches north up.
            when: acquisition time (UTC): datetime, ISO text or datetime64, one for all or one a patch. A date alone has
                no hour. None: xarray's coordinate `time`, else it is missing.
            lat, lon: of the patch centres, degrees (EPSG:4326), one for all or one a patch. None as for `when`.
            metadata: values of fields by name (`{"sun_elevation": 43.1}`, see `utils.metadata.FIELDS`), one for all or
                one a patch. They count before what follows from time and place; fields that this model does not have
                are ignored.
            bands: names of the bands given (SR_B4, B4 or STAC's red), in their order, where they are not SR_B1..SR_B7;
                others among them are left out.
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
                or "auto", the fastest of those that are installed and give the same to 1e-4.

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
        )
