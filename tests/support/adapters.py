"""The environment of `make test-adapters`, and processes in it that see nothing of the repository's folder."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT


def adapters_python() -> Path:
    """The interpreter of that environment; MOEMAE_ADAPTERS names another one. Skips where there is none."""
    python = Path(os.environ.get("MOEMAE_ADAPTERS", ROOT / ".venv-adapters")) / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there (make test-adapters sets it up)")
    return python


def run(command: list, cwd: Path, hub: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without the variables that would show it the repository.

    `hub` is the address of a server in place of the Hugging Face hub; None: there is none.
    """
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(cwd / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": hub} if hub else {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def clean_environment(folder: Path) -> Path:
    """A new environment that sees the packages of this one and of `adapters_python`; returns its interpreter."""
    python = adapters_python()
    assert run([python, "-m", "venv", "--without-pip", folder], folder.parent).returncode == 0
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site, beside = (
        run([interpreter, "-c", code], folder.parent).stdout.strip() for interpreter in (folder / "bin/python", python)
    )
    (Path(site) / "beside.pth").write_text(f"{beside}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"
