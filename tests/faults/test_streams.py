"""Standard streams that are closed, full, or know ASCII only: one true line, and never a traceback."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from utils.config import Section, load_config
from utils.errors import ConfigError, UserError, run_script
from utils.reporting import reporter, size_text

SCRIPT = """
import os, sys
from utils.errors import UserError, run_script
from utils.reporting import reporter
def main():
    reporter.info("written: caf\\u00e9")
    with open(sys.argv[1], "wb") as file:
        os.write(1, b"a library says something")
        file.write(b"content")
    if len(sys.argv) > 2:
        os.mkdir("caf\\u00e9/x")
run_script(main)
"""


def run(shell: str, tmp_path, **environment) -> tuple[int, str, bytes]:
    """The script in a shell with these redirections: exit code, standard error, the file it wrote."""
    command = f"exec {sys.executable} -c '{SCRIPT}' {tmp_path / 'file'} {shell}"
    found = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, check=False
    )
    written = tmp_path / "file"
    return found.returncode, found.stderr.decode(errors="replace"), written.read_bytes() if written.exists() else b""


FULL = Path("/dev/full")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
@pytest.mark.parametrize(
    ("shell", "environment", "code"),
    [
        (">/dev/null", {}, 0),
        (">/dev/null", ASCII, 0),
        (">&-", {}, 0),
        (">&- <&-", ASCII, 0),
        pytest.param(">/dev/full", {}, 2, marks=pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")),
        ("x >/dev/null", ASCII, 2),
    ],
    ids=["usual", "ASCII", "closed", "closed both", "full", "a path that ASCII has no letters for"],
)
def test_standard_output(tmp_path, shell, environment, code) -> None:
    """What a library writes to a closed stream does not land in a file either."""
    found, said, content = run(shell, tmp_path, **environment)
    assert "Traceback" not in said and "Exception ignored" not in said and (found, said != "") == (code, code != 0)
    assert said.count("\n") == (code != 0)
    if "full" not in shell:  # which says so at the first line
        assert content == b"content"
    if shell.startswith("x"):
        assert "PYTHONUTF8=1" in said


@pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
def test_a_reader_of_the_output_that_goes_away(tmp_path) -> None:
    found, said, _ = run("| true; exit 0", tmp_path)
    assert (found, said) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_messages_in_letters_that_a_stream_lacks(monkeypatch, encoding) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(reporter, "handlers", [])  # pytest-xdist cannot send what its own would capture
    monkeypatch.setattr(sys, "argv", ["x.py"])

    def main() -> None:
        reporter.info("written: café 北京 \udcff")

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 0 and raw.getvalue().startswith(b"written: caf")


def test_no_standard_output_at_all(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: reporter.info("nobody hears this"))
    assert caught.value.code == 0


class Config(Section):
    path: str = "a"


def test_an_override_that_the_locale_cannot_read_is_said_as_what_it_is(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("path: b\n")
    for text in ("path=caf\udcc3\udca9", 'path="caf\udcc3\udca9"', "caf\udcc3=1"):
        with pytest.raises(ConfigError, match="PYTHONUTF8=1") as caught:
            load_config(Config, tmp_path / "c.yaml", [text], lambda config, wrong: iter(()))
        str(caught.value).encode()
    assert load_config(Config, tmp_path / "c.yaml", ["path=café"], lambda config, wrong: iter(())).path == "café"


def test_a_killed_reader_is_one_line_wherever_the_signal_comes(caplog, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py"])
    monkeypatch.setattr(reporter, "propagate", True)

    def killed() -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def defect() -> None:
        raise RuntimeError("something else")

    with pytest.raises(SystemExit) as caught, caplog.at_level(logging.ERROR):
        run_script(killed)
    assert caught.value.code == 2
    with pytest.raises(RuntimeError, match="something else"):
        run_script(defect)


def test_sizes_are_never_nothing() -> None:
    assert [size_text(count) for count in (1, 999, 1000, 45_010, 2_000_000, 1_210_000_000)] == [
        "1 bytes", "999 bytes", "1.0 kB", "45.1 kB", "2.0 MB", "1.3 GB",
    ]  # fmt: skip
    assert issubclass(ConfigError, UserError)
