"""Pickles as joblib writes them, read without importing or calling anything that they name.

Unpickling imports and calls whatever a file says. Here its instructions are followed as far as plain values need them:
what a file calls a class is a name, and an object is that name with its arguments and state. What becomes of those is
for the caller, who knows which names there may be. Instructions: the standard library's `pickletools`; arrays between
them: joblib's `numpy_pickle.NumpyArrayWrapper`.
"""

import math
import pickletools
from collections.abc import Collection
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
"""What joblib writes in the place of an array; its bytes follow as they are."""

MOST_INSTRUCTIONS = 1_000_000
"""They take about ten seconds. A probe of 19 labels has 5,000."""

_ARGUMENT_AS_IT_IS = {
    "BINFLOAT", "BININT", "BININT1", "BININT2", "BINUNICODE", "BINUNICODE8", "LONG1", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS_AND_TEXT = "biufSU"
"""Kinds of dtype: all that have no Python objects inside, and no structure."""


class ForeignName(Exception):
    """A class or function that the caller did not allow."""


class Name(NamedTuple):
    """A class or function, as a file names it."""

    dotted: str


class Record:
    """What would be an object: the class or function that makes it, and what it is given."""

    def __init__(self, made_by: str, arguments: tuple):
        """Note what the file says of an object."""
        self.made_by, self.arguments = made_by, arguments
        self.state: Any = None


def read_plain_pickle(file: BinaryIO, allowed: Collection[str]) -> Any:
    """The value of a pickle: numbers, text, tuples, lists, dictionaries, arrays, `Record`s and `Name`s.

    Args:
        file: at the start of the pickle; bytes that are there already, so that no length inside can ask for more.
        allowed: dotted names of classes and functions that the file may hold.

    Raises:
        ForeignName: with the first other name.
        ValueError, IndexError, KeyError, TypeError: for a damaged file, or instructions of another kind of pickle.
    """
    return _Reading(file, allowed).value()


class _Reading:
    """The state of a pickle machine: a stack, the stacks below its marks, and the memo."""

    def __init__(self, file: BinaryIO, allowed: Collection[str]):
        self.file, self.allowed = file, allowed
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}  # by number: a list, as C has it, would be as long as the file says

    def value(self) -> Any:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(self.file)):
            if count == MOST_INSTRUCTIONS:
                raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            if instruction.name == "STOP":
                return self.stack.pop()
            self._follow(instruction.name, argument)
        raise ValueError("no end")

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _ARGUMENT_AS_IT_IS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name == "TUPLE":
            items = tuple(self._since_mark())
            self.stack.append(items)
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            _of_type(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop() for _ in range(2)][::-1] if name == "SETITEM" else self._since_mark()
            keys = (_of_type(key, str) for key in items[::2])
            _of_type(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._objects(name, argument)

    def _objects(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, attribute = stack.pop(-2), stack.pop()
            stack.append(self._named(_of_type(module, str), _of_type(attribute, str)))
        elif name in ("NEWOBJ", "REDUCE"):
            arguments, made_by = stack.pop(), stack.pop()
            stack.append(Record(_of_type(made_by, Name).dotted, _of_type(arguments, tuple)))
        elif name == "BUILD":
            state, record = stack.pop(), _of_type(stack[-1], Record)
            record.state = state
            if record.made_by == _WRAPPER:
                stack[-1] = _array(self.file, _of_type(state, dict))
        else:
            raise ValueError(f"the instruction {name} has no place in it")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _named(self, module: str, attribute: str) -> Name:
        dotted = f"{module}.{attribute}"
        if dotted not in self.allowed:
            raise ForeignName(dotted)
        return Name(dotted)


def dtype_of(value: Any) -> np.dtype:
    """The dtype that a record of `numpy.dtype` says.

    Raises:
        ValueError, TypeError: for anything else, and for dtypes of Python objects or with a structure.
    """
    record = _of_type(value, Record)
    code = _of_type(record.arguments[0], str)
    if record.made_by != "numpy.dtype" or code[:1] not in tuple(_NUMBERS_AND_TEXT) or not code[1:].isdecimal():
        raise ValueError(f"{code[:20]!r} is no dtype of numbers or text")
    order = record.state[1] if isinstance(record.state, tuple) else "|"
    return np.dtype(f"{order if order in ('<', '>') else '='}{code}")


def _array(file: BinaryIO, state: dict[str, Any]) -> np.ndarray:
    """The array whose bytes come next, aligned as joblib does: a byte says how many to leave out."""
    dtype, shape = dtype_of(state["dtype"]), _of_type(state["shape"], tuple)
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    sides = [_of_type(side, int) for side in shape]
    if min(sides, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    content = file.read(math.prod(sides) * dtype.itemsize)
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if state["order"] == "F" else "C")
    return array.astype(dtype.newbyteorder("="))


def _of_type(value: Any, wanted: type) -> Any:
    if type(value) is not wanted:
        raise TypeError(f"a {type(value).__name__} stands where a {wanted.__name__} belongs")
    return value
