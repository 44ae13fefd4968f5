"""Work with a fault at each of its file calls, and what is there afterwards."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

from faults import Attempt, Campaign
from file_calls import KILLED, SAVED, TRACEBACK, Ended, Fault, faults_of, forked

from utils.files import check_writable


def at_every_call(
    folder: Path,
    name: str,
    ci: int,
    size: int,
    prepare: Callable[[Path], object],
    work: Callable[[], object],
    check: Callable[[Ended], object],
) -> None:
    """A campaign of all faults at release length.

    Args:
        folder: where the work is done, and nothing else is.
        name: of the campaign.
        ci: how many tries in CI.
        size: bytes of the largest file; files end at parts of it.
        prepare: fills the folder, which is empty, before each try.
        work: is done with a fault.
        check: looks at the folder then.
    """

    def afresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        prepare(folder)

    afresh()
    faults = faults_of(forked(work, folder).calls, size)
    few = round(0.618 * len(faults))  # the first tries lie far apart, and all together are all faults
    step = next(number for number in range(few, len(faults)) if math.gcd(number, len(faults)) == 1)

    def one(attempt: Attempt) -> str:
        afresh()
        fault: Fault = faults[attempt.number * step % len(faults)]
        ended = forked(work, folder, fault)
        attempt.keep(folder, "place")
        attempt.keep(f"{fault} {ended}", "fault.txt")
        assert ended.code != TRACEBACK and "\n" not in ended.said, ended.said
        check(ended)
        check_writable(folder)
        assert not [path.name for path in folder.glob(".*.tmp*")]
        return {SAVED: "saved", KILLED: "killed"}.get(ended.code, "refused")

    Campaign(name, ci, len(faults)).run(one)
