"""A checkpoint to a folder that others can use, on the Hugging Face hub or elsewhere.

    python export.py --checkpoint weights/….pth --out outputs/release

Writes `model.safetensors` and `config.json` (what `MOEMAE.from_pretrained` takes), a program from digital numbers to
embeddings for PyTorch alone (`embed_cls.pt2`) and for ONNX (`embed_cls.onnx`), each checked against the model on the
spot, a `README.md` that says what is on record about the weights, and the model's code, with which `transformers` loads
the folder (`AutoModel.from_pretrained(DIR, trust_remote_code=True)`). Nothing in the folder is a pickle.
"""

import argparse
import sys

from models.pooling import POOLINGS
from utils.arguments import ArgumentParser, user_path
from utils.data_config import DATASETS, BigEarthNetInfo
from utils.errors import run_script


def _programs(text: str) -> tuple[str, ...]:
    from release.formats import FORMATS

    names = () if text == "none" else tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"unknown {unknown[0]!r}; use {', '.join(FORMATS)} or none")
    return names


def main(argv: list[str] | None = None) -> int:
    """Read the command line and export; returns the exit code.

    Raises:
        ConfigError: for an unknown flag or an impossible value.
    """
    parser = ArgumentParser(description="Export a checkpoint: weights without pickle, programs, model card.")
    add = parser.add_argument
    add("--checkpoint", required=True, type=user_path, metavar="FILE", help="weights, ours or published")
    add("--out", required=True, type=user_path, metavar="DIR", help="folder to make")
    add("--pool", choices=list(POOLINGS), help="what the programs return (default: the weights' own)")
    add("--statistics", choices=DATASETS, default=BigEarthNetInfo.NAME, help="whose mean and spread the programs "
        "normalise with (default: %(default)s)")  # fmt: skip
    add("--programs", type=_programs, default="torch_export,onnx", metavar="NAME,…", help="torch_export,onnx "
        "(default), or none: weights only")  # fmt: skip
    add("--scores", type=user_path, nargs="+", default=[], metavar="JSON", help="scores of these weights for the card, "
        "from eval_mae.py and train_logistic_regression.py")  # fmt: skip
    add("--license", metavar="NAME", help="for the card; left out, it says that none is recorded")
    arguments = parser.parse_args(argv)
    from release.export import ExportSettings, export

    values = {**vars(arguments), "scores": tuple(arguments.scores)}
    export(ExportSettings(**values))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
