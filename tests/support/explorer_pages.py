"""Interactive pages made in tests: what is in them, and what a person does with one in a browser."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
from browser import Page
from conftest import SAMPLE
from embedding_files import write_embeddings
from packing import EUROSAT
from PIL import Image

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from explore import main
from explorer.pictures import TILES_A_ROW
from utils.data_config import BigEarthNetInfo

SIDE = 40


def meta_of(page: Path) -> dict:
    text = re.search(r'<script type="application/json" id="meta">(.*?)</script>', page.read_text(), re.S)
    return json.loads(text[1])


def numbers(text: str, kind: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape or -1)


def sample_file(folder: Path, split: str = "val", **record: object) -> Path:
    """Made-up embeddings of the embedded sample's patches."""
    dataset = BigEarthNetDatasetLS(SAMPLE, f"bigearthnet-{split}.csv", labels="error")
    x = np.random.default_rng(len(dataset)).normal(size=(len(dataset), 12)) + dataset.labels.numpy() @ np.ones((19, 12))
    known = {"dataset": "bigearthnet_ls", "simulated": True, "classes": BigEarthNetInfo.CLASSES, "multilabel": True}
    return write_embeddings(folder / f"sample_{split}.npz", x, dataset.labels.numpy(), dataset.ids, **known | record)


def eurosat_file(folder: Path) -> Path:
    dataset = EuroSATDatasetLS(EUROSAT, "eurosat-train.txt")
    x = np.random.default_rng(1).normal(size=(len(dataset), 12))
    return write_embeddings(folder / "e_train.npz", x, dataset.labels.numpy(), dataset.ids)


def page_of(folder: Path, *embeddings: Path, options: tuple[str, ...] = ()) -> Path:
    out = folder / "page.html"
    assert main(["--embeddings", *map(str, embeddings), "--out", str(out), *options]) == 0
    return out


def tile(sheets: list[str], index: int) -> np.ndarray:
    sheet, at = divmod(index, TILES_A_ROW**2)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheets[sheet]))).convert("RGB"))
    row, column = divmod(at, TILES_A_ROW)
    return image[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE].astype(float)


# --------------------------------------------------------------------------- in a browser


def spot(page: Page, index: int) -> tuple[float, float]:
    """Where a patch is in the window."""
    x, y = (page.js(f"explorer.to{axis}({index})") for axis in "XY")
    return x, y + page.js("document.getElementById('plot').getBoundingClientRect().top")


def lonely(page: Page) -> int:
    """The patch farthest from all others on the plane, of those that no button covers."""
    count = page.js("JSON.parse(document.getElementById('meta').textContent).count")
    at = np.array(page.js(f"Array.from({{length: {count}}}, (_, i) => [explorer.toX(i), explorer.toY(i)])"))
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(count)
    height = page.js("explorer.camera.height")
    free = (at[:, 0] > 80) & (at[:, 1] < height - 60)
    return int(np.where(free, distance.min(axis=1), 0).argmax())


def text(page: Page, element: str) -> str:
    return page.js(f"document.getElementById('{element}').innerText")


def choose(page: Page, element: str, option: str) -> None:
    page.js(f"""(() => {{ const menu = document.getElementById('{element}');
        menu.value = [...menu.options].find((one) => one.text === {json.dumps(option)}).value;
        menu.dispatchEvent(new Event('change')); }})()""")
    page.frame()
