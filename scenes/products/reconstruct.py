"""The masked autoencoder's view of a scene: every patch as predicted from the visible quarter of its window.

Bands that the scene does not have are predicted too, but not kept: nobody could say how good they are.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.masking import seeded_masking, unpatchify, visible_unless_all
from models.moe_mae import MOEMAE
from scenes.embed import Stripe, WindowMetadata, read_stripe
from scenes.input.reader import SceneReader
from scenes.products.geotiffs import Layer, write_cog
from scenes.row_store import RowStore
from scenes.windows import Frame
from transformation.landsat_numbers import LARGEST
from transformation.transformer import ZScoreNormalize

MASK_SEED = 0
"""The mask of a window is a function of this and its place on the globe's grid."""


class SceneReconstructor:
    """Predicted pixels of windows that do not overlap.

    Args:
        reader: of the scene.
        frame: with a stride of a whole window.
        model: in evaluation mode, on its device; its mask ratio is used.
        normalize: digital numbers to z-scores and back.
        metadata: what the model is conditioned on.
        batch_size: windows at once.
    """

    def __init__(
        self,
        reader: SceneReader,
        frame: Frame,
        model: MOEMAE,
        normalize: ZScoreNormalize,
        metadata: WindowMetadata,
        batch_size: int,
    ) -> None:
        self.reader, self.frame, self.model, self.normalize = reader, frame, model.eval(), normalize
        self.metadata, self.batch_size = metadata, batch_size
        self.device = next(model.parameters()).device

    @property
    def record_shape(self) -> tuple[int, int, int]:
        """(bands, rows, columns) of a block row."""
        return len(self.reader.scene.sensor.bands), self.frame.window, self.frame.blocks_across * self.frame.window

    def run(self, store: RowStore) -> None:
        """Compute every block row that is not in the store yet."""
        blocks = range(store.done, self.frame.blocks_down)
        for block in tqdm(blocks, desc="reconstructing", unit="row", leave=False, disable=None):
            stripe = read_stripe(self.reader, self.frame, block)
            record = np.zeros(self.record_shape, np.uint16)
            for start in range(0, len(stripe.tops), self.batch_size):
                some = stripe.only(slice(start, start + self.batch_size))
                for left, pixels in zip(some.lefts, self._predict(some), strict=True):
                    record[:, :, left : left + self.frame.window] = pixels
            record[:, (stripe.pixels == 0).all(axis=0)] = 0
            store.append(record)

    @torch.no_grad()
    def _predict(self, stripe: Stripe) -> np.ndarray:
        """(n, bands of the scene, side, side) uint16 digital numbers."""
        frame, config, given = self.frame, self.model.config, self.reader.given
        images, valid = given.normalized(stripe.images(frame.window).to(self.device), self.normalize)
        meta = self.metadata.encode(frame, stripe.tops, stripe.lefts, config).to(self.device)
        places = [frame.global_index(int(t), int(x)) for t, x in zip(stripe.tops, stripe.lefts, strict=True)]
        keys = ((MASK_SEED, "scene mask", *place) for place in places)
        visible = visible_unless_all(valid, config.patch_size)
        masking = seeded_masking(keys, config.num_patches, self.model.masking, self.device, visible)
        bands = given.mask(len(images), self.device)
        predicted, _ = self.model(images, meta, masking, bands=bands, noise=False)
        numbers = self.normalize.invert(unpatchify(predicted.float(), config.patch_size, config.in_channels).cpu())
        return numbers.round().clamp(1, LARGEST).numpy().astype(np.uint16)[:, list(given.places)]


def write_reconstruction(
    path: Path, store: RowStore, frame: Frame, bands: tuple[str, ...], tags: dict[str, str], scratch: Path
) -> Path:
    """Write the pixels of a finished store, its `bands` by name, on the scene's own grid."""
    grid = frame.grid

    def stripes() -> Iterator[np.ndarray]:
        for block, record in enumerate(store.records()):
            top = block * frame.window - frame.above
            inside = slice(max(0, -top), min(frame.window, grid.height - top))
            yield record[:, inside, frame.left : frame.left + grid.width]

    layer = Layer(grid.height, grid.width, bands, "uint16", 0, grid.crs, grid.transform, tags)
    return write_cog(path, layer, stripes(), scratch)
