"""Which files this process has open."""

from pathlib import Path


def open_files(folder: Path) -> list[str]:
    """Files of a folder that this process has open, removed ones too; those of other tests come and go meanwhile."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:  # closed since, as the one that the list was read from
            continue
    return [name for name in found if name.startswith(f"{folder}/")]
