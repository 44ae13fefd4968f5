"""A checkpoint to a folder that others can use, on the Hugging Face hub or elsewhere.

    python export.py --checkpoint weights/….pth --out outputs/release

Writes `model.safetensors` and `config.json` (what `MOEMAE.from_pretrained` takes), a program from digital numbers to
embeddings for PyTorch alone (`embed_cls.pt2`) and for ONNX (`embed_cls.onnx`), each checked against the model on the
spot, a `README.md` that says what is on record about the weights, and the model's code, with which `transformers` loads
the folder (`AutoModel.from_pretrained(DIR, trust_remote_code=True)`). Nothing in the folder is a pickle.

    python export.py --checkpoint s --web outputs/page

Writes a page that embeds scenes in the browser, for any static server; with --probe it maps land cover as well.
"""

import argparse
import sys

from models.pooling import POOLINGS
from utils.arguments import ArgumentParser, user_path
from utils.data_config import DATASETS, BigEarthNetInfo
from utils.errors import run_script
from utils.project_files import find_shipped


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
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--out", type=user_path, metavar="DIR", help="folder to make")
    made.add_argument("--web", type=user_path, metavar="DIR", help="make a page that embeds in the browser instead")
    add("--web-runtime", type=user_path, metavar="DIR", help="with --web: npm's packages, where npm cannot fetch them")
    add("--probe", type=find_shipped, metavar="FILE", help="with --web: a linear probe, for land cover")
    add("--pool", choices=list(POOLINGS), help="what the programs return (default: the weights' own)")
    add("--statistics", choices=DATASETS, help="whose mean and spread the programs normalise with (default: the "
        f"probe's, else {BigEarthNetInfo.NAME})")  # fmt: skip
    add("--programs", type=_programs, default="torch_export,onnx", metavar="NAME,…", help="torch_export,onnx "
        "(default), or none: weights only")  # fmt: skip
    add("--scores", type=user_path, nargs="+", default=[], metavar="JSON", help="scores of these weights for the card, "
        "from eval_mae.py and train_logistic_regression.py")  # fmt: skip
    add("--license", metavar="NAME", help="for the card; left out, it says that none is recorded")
    arguments = parser.parse_args(argv)
    if arguments.web is not None:
        from web.export import WebSettings, export_web

        names = ("checkpoint", "web", "probe", "web_runtime", "pool", "statistics")
        export_web(WebSettings(*(getattr(arguments, name) for name in names)))
        return 0
    for name in ("probe", "web_runtime"):
        if getattr(arguments, name) is not None:
            parser.error(f"argument --{name.replace('_', '-')}: is for --web")
    from release.export import ExportSettings, export

    given = {name: getattr(arguments, name) for name in ExportSettings._fields}
    given |= {"scores": tuple(arguments.scores), "statistics": arguments.statistics or BigEarthNetInfo.NAME}
    export(ExportSettings(**given))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
