"""Python source whose modules go by other names: the one step from this repository to a package under one name.

What is renamed is found in the syntax tree or in tokens, never by searching the text: imports (also inside functions),
names given to `import_module`, entry points (`"package.module:name"`), and `python -m package.module` in strings. What
is renamed keeps its line, so that tracebacks fit the original. Only the standard library is used, and nothing of this
project is imported: build tools and `hubconf.py` load this file by itself.
"""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FRONT = "moemae"
"""The package that all others go below, and that stands in the repository under its own name."""
_NOT_INSTALLED = ("benchmarks", "tests", "docs")
_NOT_SCRIPTS = ("hubconf", "setup", "conftest")
_FROM = re.compile(rb"from(?:\s|\\\r?\n)+")
_MODULE = rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_COMMAND = re.compile(rb"(?<=python -m )" + _MODULE)
_ENTRY_POINT = re.compile(rb"[\"'](" + _MODULE + rb"):[A-Za-z_]\w*[\"']")
_STRING_TOKENS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


class _Edit(NamedTuple):
    """A piece of the source, in bytes from its start, and what takes its place."""

    start: int
    end: int
    text: str


def project_modules(folder: Path) -> dict[str, Path]:
    """Name to file of every module that is installed: packages and scripts of the repository, without the front."""
    roots = [path for path in folder.iterdir() if (path / "__init__.py").is_file()]
    files = [path for path in folder.glob("*.py") if path.stem not in _NOT_SCRIPTS and not path.stem.startswith("__")]
    for root in roots:
        if root.name not in (*_NOT_INSTALLED, FRONT):
            files += root.rglob("*.py")
    relative = {path.relative_to(folder): path for path in sorted(files)}
    return {".".join(name.with_suffix("").parts).removesuffix(".__init__"): path for name, path in relative.items()}


def imported_modules(code: str, known: Mapping[str, object]) -> set[str]:
    """Those of the `known` modules that a source imports by their names, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
    return found & known.keys()


def renamed(code: str, names: Mapping[str, str], source: str = "source") -> str:
    """A source in which every module of `names` goes by its new name.

    Args:
        code: of one module.
        names: old to new dotted name; a new name with a leading dot is of a module in the same folder.
        source: for messages.

    Raises:
        ValueError: for an import that cannot be renamed, or that is of a known package and not among `names`.
    """
    text = _Source(code)
    data = text.data
    for edit in sorted({*_import_edits(text, names, source), *_text_edits(text, names)}, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode()


class _Source:
    """A source with places in bytes from its start."""

    def __init__(self, code: str) -> None:
        self.code, self.data = code, code.encode()
        self.lines = list(io.StringIO(code, newline=""))
        self.starts = list(itertools.accumulate((len(line.encode()) for line in self.lines), initial=0))

    def span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        """Of a node; the parser counts columns in bytes."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def place(self, row: int, column: int) -> int:
        """Of a token; the tokenizer counts columns in characters."""
        line = self.lines[row - 1] if row <= len(self.lines) else ""
        return self.starts[row - 1] + len(line[:column].encode())


def _import_edits(text: _Source, names: Mapping[str, str], source: str) -> Iterator[_Edit]:
    roots = {name.partition(".")[0] for name in names}
    for node in ast.walk(ast.parse(text.code)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            _require_known(node, names, roots, source)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in names:
            yield from _from_import(node, str(node.module), text, names, source)
        elif isinstance(node, ast.Import) and any(alias.name in names for alias in node.names):
            yield from _import(node, text, names, source)
        elif isinstance(node, ast.Call) and "import_module" in (vars(node.func).get("id"), vars(node.func).get("attr")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and first.value in names:
                yield _Edit(*text.span(first), repr(names[str(first.value)]))


def _require_known(node: ast.Import | ast.ImportFrom, names: Mapping[str, str], roots: set[str], source: str) -> None:
    """A package that is renamed is renamed whole: what it lacks would be looked for under the old name."""
    absolute = isinstance(node, ast.Import) or node.level == 0
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
    for module in modules if absolute else ():
        if module not in names and module.partition(".")[0] in roots:
            raise ValueError(f"{source}:{node.lineno}: imports {module}, which is not among the renamed modules")


def _from_import(
    node: ast.ImportFrom, module: str, text: _Source, names: Mapping[str, str], source: str
) -> Iterator[_Edit]:
    """Only the module's name changes: comments and lines stay."""
    for alias in node.names:
        if names.get(f"{module}.{alias.name}", f"{names[module]}.{alias.name}") != f"{names[module]}.{alias.name}":
            raise ValueError(
                f"{source}:{node.lineno}: imports the module {alias.name} from {module}; import what is needed from it"
            )
    found = _FROM.match(text.data, text.span(node)[0])
    assert found is not None and text.data.startswith(module.encode(), found.end())
    yield _Edit(found.end(), found.end() + len(module), names[module])


def _import(node: ast.Import, text: _Source, names: Mapping[str, str], source: str) -> Iterator[_Edit]:
    parts = []
    for alias in node.names:
        root = alias.name.partition(".")[0]
        if alias.name not in names:
            parts.append(f"import {_written(alias)}")
        elif alias.asname or root == alias.name:
            parts.append(_module_import(names[alias.name], alias.asname or root))
        elif names[alias.name].startswith(".") or root not in names:
            raise ValueError(f"{source}:{node.lineno}: import {alias.name} cannot be renamed; use from … import …")
        else:  # binds the root, and loads the module below it
            parts += [f"import {names[alias.name]}", _module_import(names[root], root)]
    yield _Edit(*text.span(node), _on_lines(parts, node))


def _on_lines(statements: list[str], node: ast.stmt) -> str:
    """Statements on as many lines as one took, so that what follows keeps its line."""
    return "; ".join(statements) + " \\\n" * ((node.end_lineno or node.lineno) - node.lineno)


def _module_import(new_name: str, bound: str) -> str:
    """The statement that binds a module under its new name to `bound`."""
    parent, _, leaf = new_name.rpartition(".")
    aliased = leaf if leaf == bound else f"{leaf} as {bound}"
    return f"from {parent or '.'} import {aliased}"


def _written(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _text_edits(text: _Source, names: Mapping[str, str]) -> Iterator[_Edit]:
    """`python -m module` in strings, and strings that are an entry point."""
    absolute = {old: new for old, new in names.items() if not new.startswith(".")}
    if not absolute or not (_COMMAND.search(text.data) or _ENTRY_POINT.search(text.data)):
        return
    for token in tokenize.generate_tokens(io.StringIO(text.code, newline="").readline):
        if token.type not in _STRING_TOKENS:
            continue
        start, end = text.place(*token.start), text.place(*token.end)
        for match in _COMMAND.finditer(text.data, start, end):
            yield from _renamed_module(match[0], match.start(), absolute)
        if match := _ENTRY_POINT.fullmatch(text.data, start, end):
            yield from _renamed_module(match[1], match.start(1), absolute)


def _renamed_module(module: bytes, start: int, names: Mapping[str, str]) -> Iterator[_Edit]:
    if new := names.get(module.decode()):
        yield _Edit(start, start + len(module), new)
