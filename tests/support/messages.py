"""The messages that end a run, as the sources spell them, with … in place of values."""

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

KINDS = {"UserError", "ArgumentTypeError"}
"""Errors that end a run in one line; classes that are derived from them are found by themselves."""
MOST_FORMS = 64
VALUE = "…"


def sources(root: Path) -> Iterator[Path]:
    """The modules of the project, without its tests."""
    for path in sorted(root.rglob("*.py")):
        first = path.relative_to(root).parts[0]
        if first not in ("tests", "outputs") and not first.startswith("."):
            yield path


def kinds_of(trees: dict[Path, ast.Module]) -> set[str]:
    """`KINDS`, and all classes derived from them."""
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    kinds = set(KINDS)
    while found := {node.name for node in classes if {ast.unparse(base) for base in node.bases} & kinds} - kinds:
        kinds |= found
    return kinds


def messages(root: Path) -> list[tuple[str, str]]:
    """(file:line, message) of every such error that is made, one for each form that it can take."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources(root)}
    kinds = kinds_of(trees)
    shared = ast.Module([node for tree in trees.values() for node in tree.body if _is_constant(node)], [])
    found = []
    for path, tree in trees.items():
        for function in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
            for node in _own(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in kinds and node.args:
                    place = f"{path.relative_to(root)}:{node.lineno}"
                    for text in _texts(node.args[0], [function, tree, shared]):
                        found.append((place, " ".join(text.split())))
    return found


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function, or of a module, without those of functions inside."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()


def _texts(node: ast.expr, scopes: list[ast.AST], depth: int = 0) -> list[str]:
    """What an expression can be, as far as it is text that stands in one of the scopes, function before module."""
    if depth > 4:
        return [VALUE]
    inner = depth + 1
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return _joined([_texts(part, scopes, depth) for part in node.values])
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, scopes, inner)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _is_text(node):
        return _joined([_texts(side, scopes, depth) for side in (node.left, node.right)])
    if isinstance(node, ast.IfExp):
        return [text for side in (node.body, node.orelse) for text in _texts(side, scopes, depth)]
    if isinstance(node, ast.Name):
        values = next(filter(None, (_assigned(node.id, scope) for scope in scopes)), [])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        values = _returned(node.func.id, scopes[1])
    else:
        values = []
    told = [text for value in values if _is_text(value) for text in _texts(value, scopes, inner)]
    return told or [VALUE]


def _joined(parts: list[list[str]]) -> list[str]:
    return ["".join(choice) for choice in itertools.islice(itertools.product(*parts), MOST_FORMS)]


def _assigned(name: str, scope: ast.AST) -> list[ast.expr]:
    return _assignments(scope).get(name, [])


@cache
def _assignments(scope: ast.AST) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign):
            for at in node.targets:
                if isinstance(at, ast.Name):
                    found.setdefault(at.id, []).append(node.value)
    return found


def _returned(name: str, tree: ast.AST) -> list[ast.expr]:
    functions = [node for node in ast.iter_child_nodes(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    return [
        node.value
        for function in functions
        for node in _own(function)
        if isinstance(node, ast.Return) and node.value is not None
    ]


def _is_text(node: ast.expr) -> bool:
    """Whether an expression holds words of its own: a path or a number that a name stands for does not count."""
    return any(
        isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node)
    ) and isinstance(node, ast.Constant | ast.JoinedStr | ast.IfExp | ast.BinOp)
