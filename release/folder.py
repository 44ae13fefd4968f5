"""A folder that is whole or absent: written under a temporary name, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError, describe_os_error
from utils.files import make_folder, sync, umask
from utils.temporary import remove_leftovers, temporary_folder


def require_new(folder: Path) -> None:
    """Raise UserError where something is in the way of a new folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists; remove it or give another folder")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes that name, on an error it is removed.

    Raises:
        UserError: naming `folder`, when it exists or cannot be written.
    """
    require_new(folder)
    temporary = None
    try:
        remove_leftovers(make_folder(folder.parent))
        temporary = temporary_folder(folder)
        yield temporary
        for path in temporary.rglob("*"):
            sync(path)
        sync(temporary)
        temporary.chmod(0o777 & ~umask())
        temporary.replace(folder)
        sync(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, folder)}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
