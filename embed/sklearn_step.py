"""The encoder as a step of a scikit-learn pipeline: patches in, embeddings out."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from models.api import DEFAULT_BATCH, DEFAULT_CROP, DEFAULT_STATISTICS
from models.inference.digital_numbers import LandsatPatches
from models.inference.embedding import embed_patches
from models.inference.patch_input import PatchInput
from models.moe_mae import MOEMAE
from models.pooling import vector_width
from utils.errors import CheckpointError, DataError
from utils.metadata import PUBLISHED_FIELDS, select_fields, with_fields
from utils.sensors import OLI
from utils.when_where import when_where_columns

_ACCEPTED: dict[str, Any] = {"dtype": "numeric", "allow_nd": True, "ensure_all_finite": "allow-nan"}


def patch_rows(
    pixels: np.ndarray, when: Any = None, lat: Any = None, lon: Any = None, fields: Sequence[str] = PUBLISHED_FIELDS
) -> np.ndarray:
    """Patches with time and place as a plain table, for estimators that want one.

    Args:
        pixels: (N, C, S, S) digital numbers.
        when, lat, lon: as for `MOEMAE.embed`.
        fields: the model's `meta_fields`.

    Returns:
        (N, C * S * S + F) float32: every number of a uint16 is exact; NaN is what is not known.

    Raises:
        DataError: for other shapes, times or places.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        raise DataError(f"pixels: have shape {pixels.shape}; give (patches, bands, side, side)")
    columns = select_fields(when_where_columns(len(pixels), when, lat, lon), fields)
    return np.concatenate([pixels.reshape(len(pixels), -1).astype(np.float32), columns.astype(np.float32)], axis=1)


class MoEMAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Patches of Landsat digital numbers to embeddings; `fit` only loads the encoder, which is not trained further.

    X is (N, 7, H, W), or flat (N, 7 * S * S) for square patches; a flat row may end in the F metadata fields of the
    model, as `patch_rows` makes them. Copies and pickles hold the settings and the weights' hash, not
    the weights, which are read again from `checkpoint` where they are needed.

    Args:
        checkpoint: what `MOEMAE.from_pretrained` takes: a file, a folder, or a model on the Hugging Face hub.
        pool, crop, statistics, scale, bands, batch_size: as for `MOEMAE.embed`.
        device: where the model runs.

    Attributes:
        n_features_in_: columns of X, or its bands where it is not flat.
        weights_sha256_: of the encoder that `fit` loaded.
    """

    def __init__(
        self,
        checkpoint: str | Path = "",
        *,
        pool: str | None = None,
        crop: str = DEFAULT_CROP,
        statistics: str = DEFAULT_STATISTICS,
        scale: tuple[float, float] | None = None,
        bands: Sequence[str] | None = None,
        batch_size: int = DEFAULT_BATCH,
        device: str = "cpu",
    ) -> None:
        self.checkpoint = checkpoint
        self.pool = pool
        self.crop = crop
        self.statistics = statistics
        self.scale = scale
        self.bands = bands
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> "MoEMAETransformer":
        """Load the encoder and look at the form of X; y is not used.

        Raises:
            ValueError: for an X of another form.
            CheckpointError: as `MOEMAE.from_pretrained`.
        """
        X = np.asarray(validate_data(self, X, **_ACCEPTED))
        self._model = MOEMAE.from_pretrained(self.checkpoint, device=self.device)
        self._split(X, self._model.config.meta_fields)
        self.weights_sha256_ = _weights_hash(self._model)
        self._n_features_out = vector_width(self._model.config, self.pool or self._model.config.pool)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(N, D) float32 embeddings.

        Raises:
            ValueError: for an X of another form than the fitted one.
            DataError: for numbers, times or places that the model does not know.
        """
        check_is_fitted(self)
        model = self._loaded()
        X = np.asarray(validate_data(self, X, reset=False, **_ACCEPTED))
        pixels, columns = self._split(X, model.config.meta_fields)
        given = PatchInput(pixels, None, None, lambda rows: rows)
        patches = LandsatPatches.of(given, model.config, self.bands, self.crop, self.scale)
        patches.say_without_number(stacklevel=2)
        return embed_patches(model, patches, columns, self.pool or model.config.pool, self.statistics, self.batch_size)

    def _split(self, X: np.ndarray, fields: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """X as (N, C, H, W) pixels and metadata columns (N, len(FIELDS))."""
        bands = len(self.bands or OLI.bands)
        if X.ndim == 4:
            return X, when_where_columns(len(X))
        for extra in (0, len(fields)) if X.ndim == 2 else ():
            count = X.shape[1] - extra
            side = math.isqrt(max(0, count) // bands)
            if side and bands * side**2 == count:
                pixels = X[:, :count].reshape(len(X), bands, side, side)
                columns = when_where_columns(len(X))
                return pixels, with_fields(columns, fields, X[:, count:]) if extra else columns
        raise ValueError(
            f"X has shape {X.shape}; give (patches, {bands}, height, width), or flat rows of {bands} * side * side "
            f"numbers with or without {len(fields)} more ({', '.join(fields)}; see embed.sklearn_step.patch_rows)"
        )

    def _loaded(self) -> MOEMAE:
        """The fitted encoder, read again in a copy that came without it."""
        if not hasattr(self, "_model"):
            model = MOEMAE.from_pretrained(self.checkpoint, device=self.device)
            if _weights_hash(model) != self.weights_sha256_:
                raise CheckpointError(f"{self.checkpoint}: holds other weights than when this was fitted; fit again")
            self._model = model
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()  # of BaseEstimator; typeshed knows that of object
        return {name: value for name, value in state.items() if name != "_model"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _weights_hash(model: MOEMAE) -> str:
    """Hex SHA-256 of the weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
