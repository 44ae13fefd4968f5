"""Pixels to probabilities of classes, row of blocks by row of blocks, without seams.

Windows of the encoder lie where `scenes.windows` puts them, on one lattice whatever part of the ground a scene shows,
and overlap; what they say of a patch is blended. The head then sees every pixel with all that reaches into it: tiles
are cut with a halo. So a pixel gets the same probabilities wherever the border of a tile lies, and wherever a scene is
cut off farther away than windows and halo reach.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from finetuning.decoder import HALO, DenseDecoder, TokenLinear
from finetuning.ground import turned, turned_back
from finetuning.sources import GivenReader
from models.inference.embedder import Embedder
from models.moe_mae import MOEMAE
from scenes.embed import PixelReader, SceneEmbedder, WindowMetadata
from scenes.windows import Frame
from transformation.transformer import ZScoreNormalize

ROWS = 4
"""Block rows that are mapped at once: the fewer, the more of the work is halo."""
TILE = 320
"""Columns that the head sees at once, without the halo; a multiple of a window."""
BATCH = 64
"""Windows at once."""


class Seen(NamedTuple):
    """What a head sees of a scene: pixels, and what they are conditioned on."""

    reader: PixelReader
    frame: Frame
    normalize: ZScoreNormalize
    metadata: WindowMetadata
    bands: Tensor | None = None
    """(C,) bool, bands that are given; None: all."""


def token_rows(model: MOEMAE, seen: Seen) -> Iterator[np.ndarray]:
    """Tokens of every block row, (cells down, cells across, D) float32, NaN where a patch shows nothing."""
    frame = seen.frame
    least = 1.0 / frame.patch**2
    reader = seen.reader if seen.bands is None else GivenReader(seen.reader, seen.bands)
    embedder = Embedder(model, "all")
    cells = SceneEmbedder(reader, frame, embedder, seen.normalize, seen.metadata, "patch_mean", BATCH, least)
    return cells.rows(0, frame.blocks_down)


def token_map(model: MOEMAE, seen: Seen) -> Tensor:
    """(D, cells down, cells across) float16: tokens of the whole frame."""
    rows = [torch.from_numpy(row).permute(2, 0, 1).half() for row in token_rows(model, seen)]
    return torch.cat(rows, dim=1)


def no_tokens(frame: Frame, width: int) -> Iterator[np.ndarray]:
    """What stands for the tokens of heads that do without."""
    shape = (frame.window // frame.patch, frame.cells[1], width)
    for _ in range(frame.blocks_down):
        yield np.zeros(shape, np.float32)


def probabilities(
    head: DenseDecoder | TokenLinear, seen: Seen, tokens: Iterator[np.ndarray], symmetries: int = 8
) -> Iterator[np.ndarray]:
    """Probabilities of all classes, a scene's rows from top to bottom.

    Args:
        head: on its device, in evaluation mode.
        seen: the scene.
        tokens: of its block rows.
        symmetries: of the square, over which probabilities are averaged; the tokens are those of the scene as it lies.

    Yields:
        (K, rows, width) float32, NaN where nothing is seen.
    """
    frame, grid = seen.frame, seen.frame.grid
    bar = tqdm(total=frame.blocks_down, desc="mapping", unit="row", leave=False, disable=None)
    for block, count, around in _groups(tokens):
        found = _block_rows(head, seen, block, count, around, symmetries)
        top = block * frame.window - frame.above
        rows = slice(max(0, -top), min(count * frame.window, grid.height - top))
        bar.update(count)
        if rows.start < rows.stop:
            yield found[:, rows, frame.left : frame.left + grid.width]
    bar.close()


def _groups(tokens: Iterator[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Number of a group's first block row, how many it has, and their tokens with those of the rows beside them."""
    block, ahead = 0, next(tokens, None)
    before = None if ahead is None else np.full_like(ahead, np.nan)
    while ahead is not None and before is not None:
        group = [ahead, *islice(tokens, ROWS - 1)]
        ahead = next(tokens, None)
        after = np.full_like(before, np.nan) if ahead is None else ahead
        yield block, len(group), np.concatenate([before, *group, after])
        block, before = block + len(group), group[-1]


@torch.no_grad()
def _block_rows(
    head: DenseDecoder | TokenLinear, seen: Seen, block: int, count: int, tokens: np.ndarray, symmetries: int
) -> np.ndarray:
    """(K, count * window, width of the frame); `tokens` are those of the block rows and of one beside them each way."""
    frame, device = seen.frame, next(head.parameters()).device
    side, halo = frame.window // frame.patch, HALO // frame.patch
    height, width = count * frame.window, frame.blocks_across * frame.window
    top = block * frame.window - HALO
    numbers = seen.reader.read(top - frame.above, -HALO - frame.left, height + 2 * HALO, width + 2 * HALO)
    rows = tokens[side - halo : len(tokens) - side + halo]
    around = np.pad(rows, ((0, 0), (halo, halo), (0, 0)), constant_values=np.nan)
    found = np.full((head.sizes.classes, height, width), np.nan, np.float32)
    for left in range(0, width, TILE):
        right = min(left + TILE, width)
        tile = torch.from_numpy(numbers[None, :, :, left : right + 2 * HALO].copy())
        images, valid = seen.normalize(tile.to(device))
        inner = valid[0, HALO:-HALO, HALO:-HALO].cpu().numpy()
        if not inner.any():
            continue
        cells = torch.from_numpy(around[:, left // frame.patch : right // frame.patch + 2 * halo])
        scores = decoded(head, images, cells.permute(2, 0, 1)[None].to(device), symmetries)
        inside = scores[0, :, HALO:-HALO, HALO:-HALO].cpu().numpy()
        found[:, :, left:right] = np.where(inner, inside, np.nan)
    return found


def decoded(head: DenseDecoder | TokenLinear, images: Tensor, tokens: Tensor, symmetries: int = 1) -> Tensor:
    """Probabilities (B, K, h, w), averaged over symmetries; arguments as for `DenseDecoder.forward`."""
    total = torch.zeros(())
    for symmetry in range(symmetries):
        scores = head(turned(images, symmetry), turned(tokens, symmetry))
        total = total + turned_back(scores.softmax(dim=1), symmetry)
    return total / symmetries
