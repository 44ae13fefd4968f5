"""How far change maps can be believed, and what a series costs: the tables of `docs/evidence/time`.

    python -m docs.time_evidence change --work DIR --places 10      p-values and discoveries on simulated places
    python -m docs.time_evidence speed --work DIR --rounds 3        one series of 12 dates beside 12 single runs

Places are simulated twice, without a change and with one between their two years (a tenth of the parcels has another
land cover), with calendars of crops and woods. Every pair of dates of the two years that lie in one season is compared
by `embed_series.py --change`, and by what it leaves out step by step. What is in --work already is not made again.
"""

import argparse
from pathlib import Path

from utils.errors import run_script


def main(argv: list[str] | None = None) -> int:
    """Make a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("change", "speed"))
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="for scenes and cells")
    parser.add_argument("--out", default=Path("docs/evidence/time"), type=Path, metavar="DIR", help="for the tables")
    parser.add_argument("--checkpoint", default="xxs", metavar="FILE", help="weights (default: %(default)s)")
    parser.add_argument("--places", default=8, type=int, metavar="N", help="of the table of changes")
    parser.add_argument("--rounds", default=3, type=int, metavar="N", help="of the table of times")
    given = parser.parse_args(argv)
    if given.what == "change":
        from docs.change_evidence import change_tables

        change_tables(given.work, given.out, given.checkpoint, given.places)
    else:
        from docs.series_speed import compare_speed

        compare_speed(given.work, given.out, given.checkpoint, given.rounds)
    return 0


if __name__ == "__main__":
    run_script(main)
