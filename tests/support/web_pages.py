"""Pages that embed in the browser, made and served in tests, and the same cells computed in Python."""

import base64
import functools
import http.server
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from browser import Page
from serving import answering

from models.inference.embedder import Embedder
from models.pretrained import load_with_path
from scenes.embed import SceneEmbedder, WindowMetadata
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader
from scenes.windows import make_frame
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS

PATIENCE = 300
"""Seconds for embedding a small scene on a busy machine."""


class Served(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, as `python -m http.server` serves them, without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def serving(folder: Path) -> AbstractContextManager[str]:
    """The address of a folder, served by a thread until the block ends."""
    return answering(functools.partial(Served, directory=str(folder)))


class Cells(NamedTuple):
    """A map of embeddings before it is rounded for storage."""

    values: np.ndarray  # (rows, columns, D) float32
    origin: tuple[int, int]
    """Row and column of the scene's pixel at which the first cell begins."""


def cells_in_python(scene: Path, checkpoint: Path | str, about: dict, stride: int, cell: int, **options) -> Cells:
    """What `embed_scene.py` computes.

    Args:
        scene: a path.
        checkpoint: weights.
        about: the page's `model.json`.
        stride, cell: pixels.
        options: of `SceneOptions`.
    """
    found = find_scene(scene, SceneOptions(**options))
    model, _ = load_with_path(checkpoint)
    config = model.config
    frame = make_frame(found.grid, config.img_size, config.patch_size, stride, cell)
    normalize = ZScoreNormalize(DATASETS[about["statistics"]].STATISTICS, fill_is_data=config.published_behaviour)
    metadata = WindowMetadata(found.time, found.crs is not None, found.stated)
    with SceneReader(found) as reader:
        embedder = SceneEmbedder(
            reader, frame, Embedder(model, "all"), normalize, metadata, about["pool"], 32, about["least_clear"]
        )
        rows = list(embedder.rows(0, frame.blocks_down))
    whole = np.concatenate(rows)[frame.output_rows, frame.output_columns]
    origin = (frame.output_rows.start * cell - frame.above, frame.output_columns.start * cell - frame.left)
    return Cells(whole, origin)


def embed_in_page(page: Page, address: str, files: list[Path], stride: int, cell: int, **shown) -> Cells:
    """Open a page, choose files, embed, and take its numbers."""
    page.open(f"{address}/index.html", **shown)
    page.until("window.page && page.ready")
    page.choose_files("#files", files)
    page.until("page.pixels || !document.getElementById('problem').hidden")
    assert problem(page) == ""
    set_value(page, "stride", stride)
    set_value(page, "cell", cell)
    page.js("document.getElementById('settings').requestSubmit()")
    page.until("page.result || !document.getElementById('problem').hidden", PATIENCE)
    assert problem(page) == ""
    return Cells(
        array(page, "page.result.cells", *shape(page)),
        (page.js("page.result.origin.top"), page.js("page.result.origin.left")),
    )


def shape(page: Page) -> tuple[int, int, int]:
    return tuple(page.js("[page.result.rows, page.result.columns, page.result.width]"))


def set_value(page: Page, element: str, value: object) -> None:
    page.js(f"""(() => {{ const field = document.getElementById('{element}'); field.value = {json.dumps(str(value))};
        field.dispatchEvent(new Event('change')); }})()""")


def problem(page: Page) -> str:
    """What the page complains of; empty where nothing."""
    return page.js("document.getElementById('problem').textContent")


def array(page: Page, expression: str, *shape: int, kind: str = "<f4") -> np.ndarray:
    """A typed array of the page."""
    text = page.js(f"""(() => {{ const values = {expression};
        const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
        let text = ''; for (let i = 0; i < bytes.length; i += 32768)
            text += String.fromCharCode(...bytes.subarray(i, i + 32768));
        return btoa(text); }})()""")
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


def module(page: Page, address: str, name: str, expression: str) -> object:
    """The value of an expression in which `it` is one of the page's modules."""
    return page.js(f"import('{address}/js/{name}.js').then((it) => {expression})")
