"""Embeddings with numpy and onnxruntime alone: neither PyTorch nor this project is needed.

python release/onnx_example.py --model outputs/release/embed_cls.onnx --pixels patches.npy \
    --when 2017-06-13T10:10:31 --lat 48.2 --lon 16.4 --out embeddings.npy
"""

import argparse
import math
import sys
import tokenize
from datetime import UTC, date, datetime

import numpy as np
import onnxruntime


def open_program(path: str, threads: int) -> onnxruntime.InferenceSession:
    """A program that `export.py` wrote, on the CPU; 0 threads are one a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def metadata_row(when: str | None, lat: float | None, lon: float | None, stated: list[str]) -> list[float]:
    """ISO week, full hour (UTC), latitude and longitude (degrees), then further values; NaN is what is not known."""
    week = hour = math.nan
    if when is not None:
        try:
            week = float(date.fromisoformat(when).isocalendar().week)  # a date alone says no hour
        except ValueError:
            moment = datetime.fromisoformat(when)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment
            week, hour = float(moment.isocalendar().week), float(moment.hour)
    return [week, hour, *(math.nan if value is None else value for value in (lat, lon)), *map(float, stated)]


def embed(session: onnxruntime.InferenceSession, pixels: np.ndarray, metadata: np.ndarray, batch: int) -> np.ndarray:
    """(N, 7, 40, 40) digital numbers and (N, F) metadata to (N, D)."""
    parts = []
    for start in range(0, len(pixels), batch):
        part = slice(start, start + batch)
        inputs = {"pixels": pixels[part].astype(np.int32), "metadata": metadata[part].astype(np.float32)}
        parts.append(session.run(None, inputs)[0])
    return np.concatenate(parts)


def main() -> int:
    """Embed the patches of a `.npy`; returns the exit code."""
    parser = argparse.ArgumentParser(description="Embed Landsat patches with onnxruntime.")
    add = parser.add_argument
    add("--model", required=True, metavar="FILE.onnx", help="written by export.py")
    add("--pixels", required=True, metavar="FILE.npy", help="(N, 7, 40, 40) Collection-2 Level-2 numbers, 0 for fill")
    add("--when", help="ISO 8601, UTC; left out: not known")
    add("--lat", type=float, help="degrees; left out: not known")
    add("--lon", type=float, help="degrees; left out: not known")
    add(
        "--stated",
        nargs="*",
        default=[],
        metavar="VALUE",
        help="metadata that a program takes after week, hour, lat and lon, in its order (config.json names them)",
    )
    add("--out", required=True, metavar="FILE.npy", help="(N, D) embeddings")
    add("--batch-size", type=int, default=64, help="patches at once (default: %(default)s)")
    add("--threads", type=int, default=0, help="0 (default): one a core")
    arguments = parser.parse_args()
    try:
        pixels = np.load(arguments.pixels, allow_pickle=False)
        if pixels.ndim != 4 or pixels.dtype.kind not in "ui" or not len(pixels):
            raise ValueError(f"holds {pixels.dtype} {pixels.shape}, expected whole numbers (N, 7, 40, 40)")
        row = metadata_row(arguments.when, arguments.lat, arguments.lon, arguments.stated)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:  # a damaged header
        print(f"error: {arguments.pixels}: {error}", file=sys.stderr)
        return 2
    session = open_program(arguments.model, arguments.threads)
    vectors = embed(session, pixels, np.tile(row, (len(pixels), 1)), arguments.batch_size)
    np.save(arguments.out, vectors)
    print(f"{arguments.out}: {vectors.shape[0]} patches x {vectors.shape[1]} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
