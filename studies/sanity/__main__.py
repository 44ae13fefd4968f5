"""The sanity experiments of the paper's first page, each one command: `python -m studies.sanity overfit --out DIR`.

`overfit` overfits 100 patches, `routing` tests whether distinct land covers use the experts differently, `metadata`
ablates an encoder's metadata. Each prints whether its criterion is met and writes a report with figures and JSON into
`DIR/<experiment>`; what it needs (a pretrained encoder, for the last two) is made first, by the recipe of the config,
and kept in DIR for the next. `reproduce.py` runs the same under the names of `studies/registry.py`.
"""

import argparse
import sys

from utils.errors import run_script

EXPERIMENTS = ("overfit", "routing", "metadata")

DEFAULT_CONFIG = "configs/reproduce_sample.yaml"

QUICK_OVERRIDES = ("training.epochs=2", "bootstrap.draws=100")
"""Of `--quick`, which shows that an experiment runs and is too short for its outcome to mean anything."""

UNUSED = ("studies=[]", "eurosat=null", "other=null", "study.data=null")
"""Data that the experiments do not use."""


def main(argv: list[str] | None = None) -> int:
    """Run one experiment; returns the exit code, 1 where it did not meet its criterion."""
    options = _parser().parse_args(argv)
    from studies.sanity.experiments import run_experiment

    overrides = [*(QUICK_OVERRIDES if options.quick else ()), *options.overrides]
    overrides += [f"out_dir={options.out}", *UNUSED]
    return run_experiment(options.experiment, options.config_yaml, overrides, options.quick)


def _parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.sanity", description="The sanity experiments of the paper's first page."
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", required=True, metavar="DIR", help="working folder; the report goes into a part of it")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that shows that it works")
    parser.add_argument("--config_yaml", default=DEFAULT_CONFIG, metavar="FILE",
                        help=f"data and recipe, as for reproduce.py (default {DEFAULT_CONFIG})")  # fmt: skip
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.SUB=VALUE",
                        help="replace one value of the configuration; may be repeated")  # fmt: skip
    return parser


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
