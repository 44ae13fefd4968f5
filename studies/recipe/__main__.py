"""What recipes are worth: `python -m studies.recipe --config_yaml configs/recipe_ladder.yaml`.

Pretrain every row of the ladder, or take the weights it names, and score it beside baselines that need no training.
Stages with unchanged inputs are reused; after an interruption the same command continues.
"""

import sys
import time

from utils.arguments import config_parser
from utils.errors import run_script


def main(argv: list[str] | None = None) -> int:
    """Validate the config, do what is not done yet, write the report; returns the exit code."""
    parser = config_parser("What recipes of pretraining are worth.", reads="every key: configs/recipe.py")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="only these rows of the ladder; none: baselines only")
    parser.add_argument(
        "--tables", action="store_true", help="only print the README's tables, from the config's `result` file"
    )
    arguments = parser.parse_args(argv)
    from configs.recipe import read_recipe_config
    from eval.probing.feature_baselines import COMBINATIONS
    from studies.recipe.ladder import measure, require_rows, tables
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable
    from utils.locks import held_alone
    from utils.reporting import reporter

    started = time.perf_counter()
    config = read_recipe_config(arguments.config_yaml, arguments.overrides, tuple(COMBINATIONS))
    if arguments.tables:
        print(tables(config))
        return 0
    require_rows(config, arguments.rows)
    try:
        with StopSignals() as signals:
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose out_dir"):
                report = measure(config, folder, signals, started, arguments.rows)
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)
    reporter.info(f"report: {report}")
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
