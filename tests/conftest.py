"""Shared fixtures: a tiny simulated dataset, a tiny config, and the reference data where they are at hand."""

import contextlib
import functools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browsing, find_browser

from utils.reporting import configure

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_dataset" / "bigearthnet-l"
KINDS = ("passed", "failed", "error", "skipped")


with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401 - compilers need it, and it must come before whatever imports distutils


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, files that start scripts share one worker, and with it the server of their processes."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "scripts" if _starts_scripts(ROOT / file) else file

    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the fault suite counts (MOEMAE_FAULTS): all counts so far, in one file and on the terminal."""
    if os.environ.get("MOEMAE_FAULTS"):
        from faults import counts, lines_of, summarise

        ended = {kind: len(found) for kind, found in terminalreporter.stats.items() if kind in KINDS}
        if counts():
            terminalreporter.write_line("\n".join(lines_of(summarise(Counter(ended)))))


@functools.cache
def _starts_scripts(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    starting = (
        "import warm_python",
        "from scripts import",
        "from ranks import",
        r"from pretraining import .*\bunbroken\b",
    )
    return re.search(rf"^({'|'.join(starting)})", text, re.MULTILINE) is not None


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from more threads, and tests on shared machines lose."""
    import torch  # not above: the process that hands out the tests imports this file, too

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again(_one_thread: None) -> None:
    """A script that ran in this process may have set others."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Weights of a tiny model, the same for all who embed with them; nobody writes there."""
    from scene_files import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture(scope="session", autouse=True)
def _figures_are_drawn_once() -> Iterator[Callable[..., None]]:
    """Saving a figure does not look for its layout first, unless a test asks for it (`laid_out`); gives that way."""
    from matplotlib.figure import Figure
    from plain_figures import drawn_once

    whole = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", drawn_once(whole))
        yield whole


@pytest.fixture
def laid_out(_figures_are_drawn_once: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are saved as users see them."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", _figures_are_drawn_once)


@pytest.fixture(scope="session", autouse=True)
def _reported() -> None:
    """Messages are shown as a script shows them."""
    configure()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Workers of a parallel run ignore SIGINT, and the processes that tests start and interrupt would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder with reference outputs and real patches, from MOEMAE_REFERENCE."""
    folder = os.environ.get("MOEMAE_REFERENCE")
    if not folder:
        pytest.skip("MOEMAE_REFERENCE is not set: no reference outputs and real patches on this machine")
    return Path(folder)


@pytest.fixture(scope="session")
def real_patches(reference_dir: Path) -> Path:
    """The folder of the real BigEarthNet-Landsat patches."""
    return reference_dir / "bigearthnet_landsat_sample"


@pytest.fixture
def sample() -> Path:
    """The embedded simulated BigEarthNet-Landsat sample."""
    return SAMPLE


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A headless browser, to look at pages with."""
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium on this machine (PATH or MOEMAE_BROWSER), so the page is not tried in a browser")
    with browsing(command) as page:
        yield page
