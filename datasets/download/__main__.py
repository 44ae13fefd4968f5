"""Fetch a dataset from the Hugging Face hub, unpack it and check what came.

    python -m datasets.download bigearthnet_ls|eurosat_ls --out DIR
    python -m datasets.download bigearthnet_ls|eurosat_ls --out DIR --check

Afterwards `dataset_path: DIR` is the dataset: the split files and the archive's folder, which appears once it is whole.
Interrupted, the same command goes on, with the transfer or with unpacking; everything unfinished is in `DIR/.download`.
Where the folder is there already, only what is missing around it is fetched, and the folder is checked. An archive that
lies in DIR is unpacked instead of being fetched.
"""

import argparse
import sys

from datasets.download.source import PUBLISHED, READ_WHOLE, REPORT, Published
from utils.arguments import ArgumentParser, user_path
from utils.errors import DataError, run_script


def main(arguments: list[str] | None = None, published: dict[str, Published] = PUBLISHED) -> int:
    """The command line; returns the exit code.

    Args:
        arguments: in place of the process's own.
        published: what the hub holds.
    """
    options = _parse(arguments, published)
    from datasets.download.check import check_dataset
    from datasets.download.hub import AGAIN
    from datasets.download.transfer import Download, announce
    from utils.files import check_writable
    from utils.locks import held_alone
    from utils.reporting import reporter

    source, out = published[options.dataset], options.out
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; --out needs a folder")
    if not options.check:
        try:
            with held_alone(check_writable(out), "downloading into it; wait for it, or stop it"):
                Download(source, out, options.revision, options.endpoint).execute(options.keep_archive)
        except KeyboardInterrupt:
            reporter.warning(f"{out}: unfinished; {AGAIN}")
            raise
    checked = check_dataset(out, source, options.sample)
    announce(checked, source, out, options.report or out / REPORT)
    return 0


def _parse(arguments: list[str] | None, published: dict[str, Published]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="python -m datasets.download",
        description="Fetch a dataset from the Hugging Face hub, unpack it and check what came.",
    )
    add = parser.add_argument
    add("dataset", choices=sorted(published), help="which dataset")
    add("--out", type=user_path, required=True, metavar="DIR", help="where it is, or is to be")
    add("--check", action="store_true", help="only check what is there; needs no network")
    add("--sample", type=_sample, default=READ_WHOLE, metavar="N",
        help=f"patches to read whole, evenly spread over the splits, or `all` (default {READ_WHOLE})")  # fmt: skip
    add("--report", type=user_path, metavar="FILE", help=f"where every finding is listed (default: DIR/{REPORT})")
    add("--keep-archive", action="store_true", help="leave the archive in DIR once it is unpacked")
    add("--endpoint", metavar="URL", help="another server than the hub (default: HF_ENDPOINT)")
    add("--revision", default="main", metavar="NAME", help="branch, tag or commit of the repository (default: main)")
    return parser.parse_args(arguments)


def _sample(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number or `all`, got {text!r}")
    return int(text)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
