"""What is there without a model: statistics of a cell's pixels, and single pixels."""

from typing import NamedTuple

import numpy as np
import torch

from scenes.input.reader import SceneReader
from scenes.windows import Frame
from transformation.image_statistics import image_statistics

PIXELS_PER_CELL = 16
"""Visible pixels of a cell, spread evenly, that the per-pixel baseline sees."""


class CellPixels(NamedTuple):
    """Of N cells."""

    statistics: np.ndarray
    """(N, 28) mean, standard deviation, minimum and maximum of each band over the visible pixels."""
    pixels: np.ndarray
    """(M, 7) digital numbers of single visible pixels."""
    cell_of: np.ndarray
    """(M,) the cell of each pixel, from 0 to N - 1."""


def pixels_of_cells(reader: SceneReader, frame: Frame, rows: np.ndarray, columns: np.ndarray) -> CellPixels:
    """Read the pixels of cells.

    Args:
        reader: of the scene.
        frame: its cells.
        rows, columns: (N,) of cells with a visible pixel, in the output's rows and columns.
    """
    cell = frame.cell
    statistics = np.zeros((len(rows), 4 * len(reader.scene.bands)), np.float32)
    pixels, cell_of = [], []
    for row in np.unique(rows):
        chosen = np.flatnonzero(rows == row)
        top = (frame.output_rows.start + int(row)) * cell - frame.above
        first, last = int(columns[chosen].min()), int(columns[chosen].max())
        left = (frame.output_columns.start + first) * cell - frame.left
        stripe = reader.read(top, left, cell, (last + 1 - first) * cell)
        blocks = stripe.reshape(len(stripe), cell, -1, cell).transpose(2, 0, 1, 3)[columns[chosen] - first]
        seen = (blocks != 0).any(axis=1)
        images = torch.from_numpy(blocks.astype(np.float32))
        statistics[chosen] = image_statistics(images, torch.from_numpy(seen)).numpy()
        for index, image, visible in zip(chosen, blocks, seen, strict=True):
            spectra = image[:, visible].T
            spectra = spectra[:: -(-len(spectra) // PIXELS_PER_CELL) or 1]
            pixels.append(spectra)
            cell_of.append(np.full(len(spectra), index))
    return CellPixels(statistics, np.concatenate(pixels).astype(np.float32), np.concatenate(cell_of))
