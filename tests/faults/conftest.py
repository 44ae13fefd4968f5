"""Everything in this folder is of the fault suite: `make test-faults`, at release length with MOEMAE_FAULTS=release."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import VARIABLE, Campaign

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if os.environ.get(VARIABLE):  # such a length has no end by the clock
                item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def campaign() -> Callable[[str, int, int], Campaign]:
    """`campaign(name, ci, release)`: tries of one kind at the length that MOEMAE_FAULTS sets."""
    return Campaign
