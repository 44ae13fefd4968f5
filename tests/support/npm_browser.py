"""A headless Chromium from npm's package @sparticuz/chromium, for machines without a browser; no root is needed.

    python tests/support/npm_browser.py FOLDER

Linux on x86-64. The archive is compared with its integrity hash. What is left is FOLDER/chromium, a command for
`browser.browsing`; where it cannot be had, one line says so, and tests that need it are skipped.
"""

import base64
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
INTEGRITY = "sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
UNPACK = """
const [fs, zlib] = [require("fs"), require("zlib")];
for (const name of ["chromium", "al2023.tar", "fonts.tar"])
  fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(`package/bin/${name}.br`)));
"""
COMMAND = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/browser" "$@"
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


def npm_browser(folder: Path) -> Path | None:
    """The command in a folder that `install` has filled, if there is one."""
    path = folder / "chromium"
    return path if path.is_file() else None


def install(folder: Path) -> None:
    """Fetch and unpack. Raises OSError, subprocess.SubprocessError or ValueError where that is not possible."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ValueError("the package is for Linux on x86-64")
    if not (shutil.which("npm") and shutil.which("node")):
        raise ValueError("npm and node are not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=scratch, check=True, capture_output=True, timeout=900)
        (archive,) = scratch.glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{found}" != INTEGRITY:
            raise ValueError("another archive than the one whose hash is known")
        _unpack(archive, scratch)
        subprocess.run(["node", "-e", UNPACK], cwd=scratch, check=True, capture_output=True, timeout=900)
        for tar in ("al2023.tar", "fonts.tar"):
            _unpack(scratch / tar, scratch)
        made = scratch / "made"
        made.mkdir()
        (scratch / "chromium").rename(made / "browser")
        for part in ("lib", "fonts"):
            (scratch / part).rename(made / part)
        (made / "fonts.conf").write_text(FONTS.format(folder=folder.resolve()))
        (made / "chromium").write_text(COMMAND)
        for command in ("browser", "chromium"):
            (made / command).chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


if __name__ == "__main__":
    try:
        install(Path(sys.argv[1]))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"no browser for the page's tests, which are skipped: {error}")
