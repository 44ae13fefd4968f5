"""Shared fixtures: a tiny simulated dataset, a tiny config, and the reference data where they are at hand."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import Page, browsing, find_browser

from utils.reporting import configure

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_dataset" / "bigearthnet-l"


with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401 - compilers need it, and it must come before whatever imports distutils


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from more threads, and tests on shared machines lose."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> None:
    """A script that ran in this process may have set others."""
    torch.set_num_threads(1)


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
