"""A dataset packed into one memory-mapped array: made once from the GeoTIFFs, then read some hundred times faster.

    python -m datasets.packed --dataset bigearthnet_ls --dataset_path DIR --dataset_csv CSV [CSV ...] --out DIR
    python -m datasets.packed --check DIR [--dataset_path DIR]

Every script takes a pack as `dataset_path`. What a pack is on disk stands in `pack/format.py`, how it is written in
`pack/writer.py`, how it is read in `pack/dataset.py`.
"""

import argparse
import sys
import time

from utils.arguments import user_path
from utils.cores import usable_cores
from utils.data_config import DATASETS, IMAGE_SIZE
from utils.entry_points import lazy_names
from utils.errors import ConfigError, DataError, run_script
from utils.reporting import reporter

__getattr__ = lazy_names(__name__, "datasets.pack.dataset:PackedDataset", "datasets.pack.dataset:make_recipe")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.check:
        _check(options)
    else:
        _pack(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.packed",
        description="Pack a dataset's GeoTIFFs into one memory-mapped array. Interrupted, the same command goes on.",
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="which dataset it is")
    parser.add_argument("--dataset_path", metavar="DIR", help="where the dataset was unpacked")
    parser.add_argument("--dataset_csv", nargs="+", metavar="FILE",
                        help="split files; what any of them lists is packed once")  # fmt: skip
    parser.add_argument("--out", type=user_path, metavar="DIR", help="the pack's folder")
    parser.add_argument("--crop", choices=("center", "resize"), help="as data.crop (default: the dataset's own)")
    parser.add_argument("--image_size", type=int, default=IMAGE_SIZE, metavar="S",
                        help=f"side in pixels, as model.img_size (default {IMAGE_SIZE})")  # fmt: skip
    parser.add_argument("--published_behaviour", action="store_true",
                        help="truncate resized values, as published; a centre crop is the same either way")  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable files out and list them")
    parser.add_argument("--num_workers", type=int, metavar="N",
                        help="reader processes (default: one a core that may be used; 0: this one)")  # fmt: skip
    parser.add_argument("--check", type=user_path, metavar="DIR",
                        help="verify a pack's checksums; with --dataset_path, the source's files too")  # fmt: skip
    return parser


def _pack(options: argparse.Namespace) -> None:
    for name in ("dataset", "dataset_path", "dataset_csv", "out"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name} is required to pack; see --help")
    num_workers = usable_cores() if options.num_workers is None else options.num_workers
    if options.image_size < 1 or num_workers < 0:
        raise ConfigError("--image_size needs at least 1, --num_workers at least 0")
    from datasets.pack.dataset import make_recipe
    from datasets.pack.format import PIXELS
    from datasets.pack.source import PackSource
    from datasets.pack.writer import write_pack

    recipe = make_recipe(options.dataset, options.crop, options.image_size, options.published_behaviour)
    source = PackSource(options.dataset_path, options.dataset_csv, recipe)
    started = time.perf_counter()
    try:
        header, files = write_pack(source, options.out, options.skip_bad, num_workers)
    except KeyboardInterrupt:
        reporter.warning(f"{options.out}: unfinished; run the same command again to go on")
        raise
    kind = "simulated patches" if header.simulated else "patches"
    left_out = f", {len(header.source.left_out)} left out" if header.source.left_out else ""
    what = f"{options.out}: {header.count} {kind} of {recipe.dataset}{left_out}"
    if not files:
        reporter.info(f"{what}; finished and current, nothing to do")
        return
    seconds = time.perf_counter() - started
    reporter.info(
        f"{what}, {header.files[PIXELS].bytes / 1e6:.1f} MB, in {seconds:.1f} s ({files / seconds:.0f} files/s)"
    )


def _check(options: argparse.Namespace) -> None:
    from datasets.pack.format import read_table, verify_checksums
    from datasets.pack.source import PackSource
    from utils.data_utils import list_some

    header = verify_checksums(options.check)
    said = f"{options.check}: whole; {header.count} patches, every checksum agrees"
    if options.dataset_path:
        source = PackSource(options.dataset_path, [str(options.check / name) for name in header.splits], header.recipe)
        stale = source.changed({row.id: row.source for row in read_table(options.check, header.count)})
        if stale:
            raise DataError(
                f"{options.check}: {len(stale)} of {header.count} patches have changed in {source.root} since they "
                f"were packed ({list_some(stale)}); pack again"
            )
        said += f"; made from what {source.root} holds now"
    reporter.info(said)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
