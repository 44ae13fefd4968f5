"""A tiny model and patches to embed with it, as a person brings them: fixtures, which a test file takes by name."""

import numpy as np
import pytest
from tiny_weights import tiny_model

from models import MOEMAE


@pytest.fixture(scope="module")
def model() -> MOEMAE:
    return tiny_model()


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(7_300, 20_000, (3, 7, 41, 43), dtype=np.uint16)
