"""Files that come with the project: below the repository, or below the installed package."""

from pathlib import Path

from utils.reporting import reporter

PROJECT = Path(__file__).resolve().parent.parent
"""The repository's folder; of an installed package, its own."""
SHIPPED_FOLDERS = ("configs", "weights")
"""Their files are found from any folder, by the path that they have in the repository."""


def find_shipped(path: str | Path) -> Path:
    """`path` itself, or the project's file that it names from the repository's folder, where nothing is nearer."""
    path = Path(path).expanduser()
    if path.is_absolute() or path.exists() or not path.parts or path.parts[0] not in SHIPPED_FOLDERS:
        return path
    shipped = PROJECT / path
    if ".." in path.parts or not shipped.exists():
        return path
    reporter.info(f"{path}: not in this folder; taken from {PROJECT}")
    return shipped
