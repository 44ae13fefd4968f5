"""Mutation score of a module, run by hand: small changes of it, one at a time, each of which the tests have to notice.

    python -m tests.mutants datasets/pack/format.py tests/datasets/test_packed.py tests/faults/test_packs.py --count 25

The module is changed in place, so the tree must be clean, and the file is put back however the command ends. Best in a
worktree of its own, with the quick tests named first: the first failing test ends a mutant.
"""

import argparse
import ast
import contextlib
import copy
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd,
}  # fmt: skip
LEAST_SECONDS = 90.0
MOST_MEMORY = 8 << 30
KILLED, SURVIVED, HUNG = "killed", "SURVIVED", "hung"


class Mutant(NamedTuple):
    line: int
    change: str
    source: str
    """The whole module with the change."""


def changed(node: ast.AST) -> ast.AST | None:
    """The node with one small change; None where there is none for its kind."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[first, *_]) if type(first) in SWAPPED:
            new.ops[0] = SWAPPED[type(first)]()
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(new.op) in SWAPPED:
            new.op = SWAPPED[type(new.op)]()
        case ast.UnaryOp(op=ast.Not()):
            return new.operand
        case ast.Constant(value=int(value)):
            new.value = not value if isinstance(value, bool) else value + 1
        case ast.If():
            new.test = ast.UnaryOp(ast.Not(), new.test)
        case ast.Return(value=ast.expr() as value) if not isinstance(
            value, ast.Constant
        ):  # constants change themselves
            new.value = ast.Constant(None)
        case ast.Expr(value=ast.Call()):
            new.value = ast.Constant(None)
        case ast.Raise():
            return ast.Pass()
        case _:
            return None
    return new


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module, in its order; annotations and what runs as a script alone stay as they are."""
    tree = ast.parse(source)
    found = []
    for parent, field, at, node in list(_places(tree)):
        if new := changed(node):
            _put(parent, field, at, new)
            change = f"{ast.unparse(node).splitlines()[0]} -> {ast.unparse(new).splitlines()[0]}"
            found.append(Mutant(getattr(node, "lineno", 0), change, ast.unparse(ast.fix_missing_locations(tree))))
            _put(parent, field, at, node)
    return found


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int, ast.AST]]:
    for field, value in ast.iter_fields(parent):
        for at, node in enumerate(value if isinstance(value, list) else [value]):
            quiet = field in ("annotation", "returns") or (
                isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
            )
            if isinstance(node, ast.AST) and not quiet:
                yield parent, field, at, node
                yield from _places(node)


def _put(parent: ast.AST, field: str, at: int, node: ast.AST) -> None:
    value = getattr(parent, field)
    if isinstance(value, list):
        value[at] = node
    else:
        setattr(parent, field, node)


@contextlib.contextmanager
def put_back(path: Path) -> Iterator[None]:
    """The file is as it was afterwards, also when the command is interrupted or terminated."""
    before = path.read_bytes()
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        path.write_bytes(before)
        signal.signal(signal.SIGTERM, handler)


def ending(tests: list[str], seconds: float | None) -> str:
    """How the tests end in a process of their own, whose group is gone afterwards."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(tests,))
    process.start()
    try:
        process.join(seconds)
        return HUNG if process.is_alive() else (SURVIVED if process.exitcode == 0 else KILLED)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _test(tests: list[str]) -> Any:
    import pytest

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation score of a module.")
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--count", type=int, default=25, help="mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True).stdout:
        sys.exit("the tree has changes that are not committed; commit them, or use a worktree of its own")
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of the one before
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with contextlib.suppress(ImportError):
        import rasterio  # noqa: F401 - once, for all that are forked
        import torch  # noqa: F401
    started = time.monotonic()
    if ending(args.tests, None) != SURVIVED:
        sys.exit("the tests fail on the module as it is")
    most = max(LEAST_SECONDS, 3 * (time.monotonic() - started))
    mutants = mutants_of(args.module.read_text(encoding="utf-8"))
    ends: Counter[str] = Counter()
    with put_back(args.module):
        for mutant in random.Random(args.seed).sample(mutants, min(args.count, len(mutants))):
            args.module.write_text(mutant.source, encoding="utf-8")
            started = time.monotonic()
            end = ending(args.tests, most)
            ends[end] += 1
            seconds = time.monotonic() - started
            print(f"{end:8} {args.module}:{mutant.line}: {mutant.change} ({seconds:.0f} s)", flush=True)
    noticed = ends.total() - ends[SURVIVED]
    print(f"{args.module}: {noticed} of {ends.total()} noticed; there are {len(mutants)}")


if __name__ == "__main__":
    main()
