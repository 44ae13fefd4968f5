"""The texts of the project and the reference of its Python API, as a website: `make docs` writes outputs/site.

    python -m docs.site && mkdocs build --strict

Texts link to each other, to configs and to pictures as they lie in the repository. All that they link to is copied, at
the same paths, into outputs/site_source, so that mkdocs checks every link. The reference has a page for each package,
made from the docstrings of its modules.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "outputs/site_source"
FIRST = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
PACKAGES = (
    "models", "embed", "scenes", "datasets", "transformation", "classification_models", "eval", "explorer", "training",
    "temporal", "scheduler", "release", "configs", "utils",
)  # fmt: skip
LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)#\s]+)")


def targets(page: Path) -> list[Path]:
    """What a page links to, as paths in the repository."""
    found = [page.parent / link for link in LINK.findall(page.read_text(encoding="utf-8"))]
    return [path.resolve().relative_to(ROOT) for path in found]


def linked_files() -> set[Path]:
    """The texts, and every file that one of them links to; of a folder, its README."""
    waiting = [Path(name) for name in FIRST] + [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if (ROOT / path).is_dir():
            path /= "README.md"
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        if path.suffix == ".md":
            waiting += targets(ROOT / path)
    return seen


def for_site(page: Path) -> str:
    """A page's text with links that a website has: a folder's is that of its README, or none."""
    text = page.read_text(encoding="utf-8")
    for link in set(LINK.findall(text)):
        if (page.parent / link).is_dir():
            readme = page.parent / link / "README.md"
            if readme.exists():
                text = text.replace(f"]({link})", f"]({link.rstrip('/')}/README.md)")
            else:
                text = re.sub(rf"\[([^\]]+)\]\({re.escape(link)}\)", r"\1", text)
    return text


def reference(package: str) -> str:
    """The page of a package: its modules in the order of their names."""
    modules = sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")
    names = [".".join(path.with_suffix("").parts) for path in modules if path.name != "__main__.py"]
    return "\n\n".join([f"# {package}", *(f"::: {name}" for name in names)]) + "\n"


def write() -> None:
    """Write outputs/site_source anew."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for path in sorted(linked_files()):
        to = SOURCE / path
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            to.write_text(for_site(ROOT / path), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / path, to)
    (SOURCE / "api").mkdir(parents=True)
    for package in PACKAGES:
        (SOURCE / "api" / f"{package}.md").write_text(reference(package), encoding="utf-8")


if __name__ == "__main__":
    write()
