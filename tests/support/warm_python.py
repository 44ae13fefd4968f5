"""Python processes that need not import PyTorch again, for tests that start a script.

    done = run(["pretrain_mae.py", "--config_yaml", config], cwd=ROOT)   # like subprocess.run([sys.executable, …])

Each is a process of its own, with its own arguments, folder, environment, streams, signals and exit code, forked from a
server that has imported other people's packages and none of this project. That saves three to five seconds of
processor time a start. What tests imports or the interpreter's own start takes `subprocess`.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch", "torch._dynamo", "torch._inductor", "torch.distributed", "rasterio", "rasterio.warp", "pydantic", "pandas",
    "matplotlib.pyplot", "sklearn.linear_model", "sklearn.metrics", "sklearn.manifold", "joblib", "scipy.spatial",
]  # fmt: skip


def server() -> Any:
    """The context whose processes are forked with `PRELOADED` imported; one server for each process of the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Process:
    """A started process, with what tests use of `subprocess.Popen`; its streams go to files."""

    def __init__(self, arguments: list[Any], cwd: str | Path, env: dict[str, str] | None) -> None:
        self.args = [str(argument) for argument in arguments]
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        environment = dict(os.environ if env is None else env)
        self._ended, held = server().Pipe(duplex=False)
        self._process = server().Process(target=_become, args=(self.args, str(cwd), environment, self._files, held))
        self._process.start()
        held.close()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._text(0)

    @property
    def stderr(self) -> str:
        return self._text(1)

    def _text(self, which: int) -> str:
        return self._files[which].read_text(encoding="utf-8") if self._files[which].exists() else ""

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, self.stdout, self.stderr)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for it and for those that it has forked, as reading its streams to the end does; what they wrote."""
        if not self._ended.poll(timeout):  # nothing is sent: it ends with the last that holds the other end
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, self.stdout, self.stderr)
        self.wait(timeout)
        time.sleep(0.05)  # a process that ends closes its files, and releases its locks, in no promised order
        return self.stdout, self.stderr

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(arguments: list[Any], *, cwd: str | Path, env: dict[str, str] | None = None) -> Process:
    """`subprocess.Popen([sys.executable, *arguments], …)`."""
    return Process(arguments, cwd, env)


def run(
    arguments: list[Any], *, cwd: str | Path, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess:
    """`subprocess.run([sys.executable, *arguments], capture_output=True, text=True, …)`."""
    process = start(arguments, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _become(arguments: list[str], cwd: str, env: dict[str, str], files: list[Path], held: Any) -> None:
    """Be what `python *arguments` is, and hold `held` open meanwhile; does not return."""
    streams = [os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600) for file in files]
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (streams[0], 1), (streams[1], 2)):
        os.dup2(source, target)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    if threads := env.get("OMP_NUM_THREADS"):  # read by PyTorch when it is imported, which was before
        import torch

        torch.set_num_threads(int(threads))
    here = Path(__file__).parents[2]
    sys.path[:] = [path for path in sys.path if Path(path) not in (here, here / "tests", here / "tests" / "support")]
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    for name in [name for name, module in sys.modules.items() if _is_ours(module, here)]:
        del sys.modules[name]
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by itself
    code = 1
    try:
        _run(arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def _is_ours(module: Any, here: Path) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and here in Path(file).parents and "site-packages" not in file


def _run(arguments: list[str]) -> None:
    """What the interpreter does with its arguments."""
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [""]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv, sys.path[:0] = rest, [str(Path.cwd())]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:0] = arguments, [str(Path(first).resolve().parent)]
        runpy.run_path(first, run_name="__main__")
