"""Normalised patches to vectors, as fast as the device allows: the one way to embeddings for every script."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.inference.micro_batches import MicroBatches
from models.inference.protocol import PatchEncoder
from models.inference.runtimes import choose_runtime, require_known
from models.masking import visible_unless_all
from models.pooling import WINDOW_POOLINGS, pool_tokens
from utils.compilation import EAGER, Compilation
from utils.errors import ConfigError


class Embedder:
    """A model in evaluation mode, without routing noise, as a function from patches to vectors.

    Args:
        model: on its device; put into evaluation mode.
        pool: a key of `models.pooling.POOLINGS`.
        autocast: type of mixed precision; None computes in float32.
        backend: what computes tokens, a key of `models.inference.runtimes.CHOICES`; others than "torch" compute in
            float32 and are not compiled.
        patches: how many will be embedded, for "auto".
        compilation: whether to compile. Batches are then filled up to `batch_size`, to keep one shape.
        batch_size: greatest number of patches of a call.
    """

    def __init__(
        self,
        model: PatchEncoder,
        pool: str,
        *,
        autocast: torch.dtype | None = None,
        compilation: Compilation = EAGER,
        batch_size: int = 0,
        backend: str = "torch",
        patches: int = 0,
    ) -> None:
        model.eval()
        require_known(backend)
        if autocast is not None or compilation.wanted:
            if backend not in ("torch", "auto"):
                raise ConfigError(
                    f"backend: {backend} is float32 and needs no compiling; use torch, or amp and compile off"
                )
            backend = "torch"
        # Where the patches' own tokens are not pooled, what would become of them in the last block is left out.
        self._read = model.config.num_prefix if pool in WINDOW_POOLINGS else None
        self.backend, self._tokens = choose_runtime(backend, model, patches, self._read)
        self.at_once = self._tokens.at_once if isinstance(self._tokens, MicroBatches) else None
        """Patches that each of several threads takes at a time; None: one call computes all."""
        self.model, self.pool, self.autocast = model, pool, autocast
        self._fill_to = batch_size if compilation.wanted else 0
        self._compute = compilation.of(self._vectors)

    def __call__(
        self, images: Tensor, meta: Tensor | None, valid: Tensor | None = None, bands: Tensor | None = None
    ) -> Tensor:
        """Vectors (B, D) float32.

        Args:
            images: (B, C, H, W), normalised.
            meta: (B, F, 2); None: missing.
            valid: (B, H, W) bool, pixels that can be seen; None: all.
            bands: (B, C) bool, bands that are given; None: all.
        """
        visible = None if valid is None else visible_unless_all(valid, self.model.config.patch_size)
        return self.of_visible(images, meta, visible, bands)

    @torch.no_grad()
    def of_visible(
        self, images: Tensor, meta: Tensor | None, visible: Tensor | None, bands: Tensor | None = None
    ) -> Tensor:
        """The same where the patches that can be seen are known: `visible` (B, N) bool; None: all."""
        count = len(images)
        missing = max(0, self._fill_to - count)
        if missing:
            images = F.pad(images, (0, 0) * 3 + (0, missing))
            meta = None if meta is None else F.pad(meta, (0, 0) * 2 + (0, missing))
            visible = None if visible is None else F.pad(visible, (0, 0, 0, missing), value=True)
            bands = None if bands is None else F.pad(bands, (0, 0, 0, missing), value=True)
        return self._compute(images, meta, visible, bands)[:count]

    def _vectors(self, images: Tensor, meta: Tensor | None, visible: Tensor | None, bands: Tensor | None) -> Tensor:
        enabled = self.autocast is not None
        with torch.autocast(images.device.type, dtype=self.autocast, enabled=enabled, cache_enabled=False):
            missing = images.new_zeros(len(images), len(self.model.config.meta_fields), 2)
            tokens = self._tokens(images, missing if meta is None else meta, visible, bands)
        return pool_tokens(tokens, self.pool, self.model.config.num_prefix, visible if self._read is None else None)
