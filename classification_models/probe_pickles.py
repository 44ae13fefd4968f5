"""A probe from a `.joblib`, ours or the authors', without running what the file says.

A pickle runs whatever its author put there. This one is read as names, numbers and text (`plain_pickles`); the few
scikit-learn objects that a probe consists of are then made here, and given their numbers.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier, _ConstantPredictor
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from classification_models.plain_pickles import Name, Record, dtype_of, read_plain_pickle

_PROBE = "classification_models.logistic_regression.LogisticRegressionModel"
_ESTIMATORS: dict[str, type] = {
    "sklearn.linear_model._logistic.LogisticRegression": LogisticRegression,
    "sklearn.multiclass.OneVsRestClassifier": OneVsRestClassifier,
    "sklearn.multiclass._ConstantPredictor": _ConstantPredictor,
    "sklearn.preprocessing._label.LabelBinarizer": LabelBinarizer,
    "sklearn.preprocessing._data.StandardScaler": StandardScaler,
}
_SCALARS = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
_NUMPY = ("joblib.numpy_pickle.NumpyArrayWrapper", "numpy.dtype", "numpy.ndarray")
ALLOWED = frozenset({_PROBE, *_ESTIMATORS, *_SCALARS, *_NUMPY})
"""All that a probe's file may name."""

_VERSION = "_sklearn_version"
_MOST_VALUES = 1_000_000
"""A file that names the same list many times over unfolds to more than it holds."""
MOST_BYTES = 2**28
"""Of a probe's file when unpacked: one on 15,120 numbers and 19 labels has 2.3 MB."""
_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00": lzma.open,
}


def read_probe_pickle(path: Path) -> tuple[dict[str, Any], set[str]]:
    """The attributes of the probe in a `.joblib`, and the versions of scikit-learn that it was written with.

    Raises:
        ForeignName: with the first class or function that no probe needs.
        ValueError, TypeError, and others: for a damaged file, or one that holds something else.
    """
    value = read_plain_pickle(io.BytesIO(_content(path)), ALLOWED)
    if not isinstance(value, Record) or value.made_by != _PROBE:
        raise TypeError(f"it holds a {value.made_by if isinstance(value, Record) else type(value).__name__}")
    making = _Making()
    return making.attributes(value), making.versions


def _content(path: Path) -> bytes:
    """A file's bytes, unpacked where joblib was asked to compress."""
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
        if start[:1] == b"\x78":
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(file.read(MOST_BYTES), MOST_BYTES + 1)
        else:
            content = (opener(file) if opener else file).read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError("it has more than 256 MiB")
    return content


class _Making:
    """Records to objects: each once, however often the file names it."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.count = 0
        self.versions: set[str] = set()

    def attributes(self, record: Record) -> dict[str, Any]:
        """An object's attributes.

        Raises:
            TypeError: where the file has something else than a dictionary of them.
        """
        if not isinstance(record.state, dict) or not record.state:
            raise TypeError(f"its {record.made_by} has no attributes")
        made = {name: self._made(value) for name, value in record.state.items()}
        if _VERSION in made:
            self.versions.add(str(made.pop(_VERSION)))
        return made

    def _made(self, value: Any) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise ValueError("it has more than a million values")
        if isinstance(value, Record):
            if id(value) not in self.made:
                self.made[id(value)] = self._object(value)
            return self.made[id(value)]
        if isinstance(value, Name):
            raise TypeError(f"it has {value.dotted} itself in the place of a value")
        if isinstance(value, dict):
            return {key: self._made(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._made(inner) for inner in value)
        return value

    def _object(self, record: Record) -> Any:
        if record.made_by in _SCALARS:
            dtype, content = record.arguments
            (scalar,) = np.frombuffer(content, dtype_of(dtype))
            return scalar
        if record.made_by not in _ESTIMATORS:
            raise TypeError(f"it has a {record.made_by} in a place of its own")
        kind = _ESTIMATORS[record.made_by]
        made: Any = object.__new__(kind)
        vars(made).update(self.attributes(record))
        return made
