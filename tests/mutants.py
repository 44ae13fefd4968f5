"""Mutation score of a module, run by hand: small changes, one at a time, each of which its tests have to notice.

    python -m tests.mutants datasets/pack/format.py tests/datasets/test_packed.py tests/faults/test_packs.py --count 25

The module is changed in place and put back; best in a worktree of its own, with the quickest tests first.
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
from collections.abc import Iterator
from pathlib import Path

import torch  # noqa: F401 - once, for all tests that are forked

PAIRS = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
         (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.BitOr, ast.BitAnd))  # fmt: skip
SWAPPED = dict(PAIRS) | {second: first for first, second in PAIRS}
MOST_MEMORY = 8 << 30
NOTICED, SURVIVED, HUNG = "noticed", "SURVIVED", "hung"


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
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):  # which change themselves
            new.value = ast.Constant(None)
        case ast.Expr(value=ast.Call()):
            new.value = ast.Constant(None)
        case ast.Raise():
            return ast.Pass()
        case _:
            return None
    return new


def mutants_of(source: str) -> list[tuple[str, str]]:
    """Each change of a module and the module with it; annotations, and what runs as a script alone, stay."""
    tree, found = ast.parse(source), []
    for siblings, at, node in list(_places(tree)):
        if new := changed(node):
            siblings[at] = new
            change = " -> ".join(ast.unparse(one).splitlines()[0] for one in (node, new))
            source = ast.unparse(ast.fix_missing_locations(tree))
            found.append((f"{getattr(node, 'lineno', '')}: {change}", source))
            siblings[at] = node
    return found


def _places(parent: ast.AST) -> Iterator[tuple[dict | list, str | int, ast.AST]]:
    """Every node below another, and where it hangs."""
    for field, value in ast.iter_fields(parent):
        children = enumerate(value) if isinstance(value, list) else [(field, value)]
        for at, node in children if field not in ("annotation", "returns") else ():
            if isinstance(node, ast.AST) and not (isinstance(node, ast.If) and "__name__" in ast.dump(node.test)):
                yield value if isinstance(value, list) else vars(parent), at, node
                yield from _places(node)


def ending(tests: list[str], seconds: float) -> str:
    """How the tests end in a process of their own, whose group is gone afterwards."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(tests,))
    process.start()
    try:
        process.join(seconds)
        return HUNG if process.is_alive() else SURVIVED if process.exitcode == 0 else NOTICED
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)


def _test(tests: list[str]) -> None:
    import pytest

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation score of a module.")
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+")
    for name, number in (("--count", 25), ("--seed", 0), ("--seconds", 300)):
        parser.add_argument(name, type=int, default=number)
    args = parser.parse_args()
    if not args.module.is_file():
        parser.error(f"{args.module}: no such file; give a module of this repository, from its top folder")
    if subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True).stdout:
        sys.exit("the tree has changes that are not committed: commit them, or use a worktree of its own")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of the one before
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if ending(args.tests, args.seconds) != SURVIVED:
        sys.exit("the tests fail on the module as it is")
    whole, ends = args.module.read_bytes(), []
    mutants = mutants_of(whole.decode())
    try:
        for change, source in random.Random(args.seed).sample(mutants, min(args.count, len(mutants))):
            args.module.write_text(source, encoding="utf-8")
            ends.append(ending(args.tests, args.seconds))
            print(f"{ends[-1]:8} {args.module}:{change}", flush=True)
    finally:
        args.module.write_bytes(whole)
    print(f"{args.module}: {len(ends) - ends.count(SURVIVED)} of {len(ends)} noticed, of {len(mutants)} that there are")


if __name__ == "__main__":
    main()
