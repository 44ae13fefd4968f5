"""A compiled and a captured training step: results as eager, one graph, and one line where it is not possible."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from target_step import ALL, fitted, plus_step
from tiny import training_config
from tiny_step import CONFIG, CPU, ROWS, SIZE, a_batch, a_step, numbers, padded

from models import ModelConfig
from models.target import TargetOptions
from pretrain_mae import main as pretrain
from training.capture import WARM_UP, CapturedStep
from training.objective import Objective
from training.step import StepInputs, StepResult, TrainStep
from utils.compilation import EAGER, Compilation

pytestmark = pytest.mark.programs

COMPILE = torch.compile


@pytest.fixture
def graphs(monkeypatch) -> Iterator[list]:
    """`torch.compile` without a code generator: the graphs that it finds, run as they are; a break is an error."""
    found = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, **kinds: COMPILE(f, backend=backend, fullgraph=True, **kinds))
    torch.compiler.reset()
    yield found
    torch.compiler.reset()


def both_ways(compilation: Compilation, config: ModelConfig = CONFIG) -> list[tuple[StepResult, StepResult]]:
    """Some steps of full and padded batches, eager and compiled."""
    eager, compiled = a_step(EAGER, config), a_step(compilation, config)
    results = []
    for number in range(4):
        batch = padded(a_batch(number, SIZE if number % 2 == 0 else ROWS, config.img_size))
        results.append((eager(batch, number, 1e-3), compiled(batch, number, 1e-3)))
    return results


def test_one_graph_for_full_and_padded_batches(graphs) -> None:
    lines = []
    for expected, found in both_ways(Compilation(True, lines.append)):
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-5)
        assert torch.equal(found.chosen, expected.chosen)
    assert (len(graphs), lines) == (1, [])


def test_every_target_and_augmentation_is_in_that_graph(graphs) -> None:
    weights, widths = {**ALL, "contrast": 1.0}, TargetOptions(widths=(8,))
    augmentations = (("symmetries", 1.0), ("band_dropout", 0.5), ("random_fill", 0.5))
    lines = []
    eager, compiled = (
        plus_step(fitted(weights, widths), compilation=compilation, augmentations=augmentations)
        for compilation in (EAGER, Compilation(True, lines.append))
    )
    for number in range(2):
        batch = padded(a_batch(number, SIZE if number % 2 == 0 else ROWS))
        expected, found = (step(batch, number, 1e-3) for step in (eager, compiled))
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4)
        torch.testing.assert_close(found.targets, expected.targets, rtol=1e-4, atol=1e-6)
    assert (len(graphs), lines) == (1, [])


def test_a_compiled_run_is_one_graph_and_the_eager_run(graphs, tmp_path, capsys) -> None:
    """Three epochs of batches of 4, 4 and 2 patches, with validation in between."""
    tables = []
    for choice in ("off", "on"):
        (tmp_path / choice).mkdir()
        config = training_config(tmp_path / choice, compile=choice, val_csv="bigearthnet-val.csv")
        assert pretrain(["--config_yaml", str(config)]) == 0
        tables.append(np.loadtxt(tmp_path / choice / "run" / "training_metrics_XXS.csv", delimiter=",", skiprows=1))
        said = capsys.readouterr().out
        assert (", compiled on" in said) is (choice == "on")
        assert "compile:" not in said
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-4)
    assert len(graphs) == 1


def test_size_s_is_one_graph(graphs) -> None:
    """In three of its blocks, with 3, 4 and 5 experts of width 144, 108 and 72; the others repeat them."""
    step = a_step(Compilation(True), ModelConfig.of_size("S", depth=3, img_size=24))
    step(a_batch(side=24), 0, 1e-3)
    assert len(graphs) == 1
    assert step.model.config.experts == (3, 4, 5)


def a_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


@pytest.mark.slow
@pytest.mark.skipif(
    not a_compiler(), reason="no C++ compiler on this machine: torch.compile has nothing to compile with"
)
def test_compiled_steps_are_the_eager_ones() -> None:
    """With the code generator, on a model as small as they get: a minute at first, then seconds from torch's cache.

    Every kernel costs a run of the C++ compiler. Blocks of a decoder would be no others than the encoder's.
    """
    lines = []
    torch.compiler.reset()
    compilation = Compilation.chosen("on", CPU, 1, 10**9, lines.append)
    tiny = CONFIG.replace(img_size=8, depth=1, experts=(3,), decoder_depth=0)
    for expected, found in both_ways(compilation, tiny):
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4)
        assert torch.equal(found.chosen, expected.chosen)
    assert lines == []


def test_what_compile_means() -> None:
    lines = []
    for choice, kind, calls, wanted in (
        ("off", "cuda", 10**9, False),
        ("on", "cpu", 1, True),
        ("auto", "cuda", 1, True),
        ("auto", "cpu", 99, False),
        ("auto", "cpu", 100, True),
        ("on", "mps", 1, False),
    ):
        assert Compilation.chosen(choice, torch.device(kind), calls, 100, lines.append).wanted is wanted
    assert lines == ["compile: not used on mps"]


# --------------------------------------------------------------------------- where compiling fails


def failing(*_: object) -> None:
    from torch._inductor.exc import InvalidCxxCompiler  # takes seconds, in every process that collects tests

    raise InvalidCxxCompiler


def test_without_a_compiler_a_run_goes_on_with_one_line(tmp_path, monkeypatch, capsys) -> None:
    config = training_config(tmp_path, epochs=2, compile="on", dataset_path=str(SAMPLE))
    monkeypatch.setattr(torch, "compile", lambda f, **kinds: COMPILE(f, backend=failing, **kinds))
    assert pretrain(["--config_yaml", str(config)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compile:")]
    assert len(lines) == 1
    assert lines[0].startswith("compile: not possible here (")
    assert "No working C++ compiler" in lines[0]
    assert lines[0].endswith("; going on without")


def test_a_compiler_that_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    lines = []
    function = Compilation(True, lines.append).of(lambda x: (x.tanh() + 3).sum(1))
    with torch._inductor.config.patch({"cpp.cxx": (None, str(tmp_path / "g++"))}):
        out = function(torch.zeros(8, 9))
    assert out.tolist() == [27.0] * 8
    assert len(lines) == 1
    assert "C++ compiler" in lines[0]


def test_a_backward_pass_that_cannot_be_compiled(monkeypatch) -> None:
    """It is compiled with the forward pass, so that this too is found where it can be mended."""
    from functorch.compile import aot_module_simplified, make_boxed_func

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        forward = lambda inner, _: make_boxed_func(inner.forward)  # noqa: E731
        return aot_module_simplified(graph, inputs, fw_compiler=forward, bw_compiler=failing)

    monkeypatch.setattr(torch, "compile", lambda f, **kinds: COMPILE(f, backend=backend, **kinds))
    torch.compiler.reset()
    lines, x = [], torch.ones(4, requires_grad=True)
    function = Compilation(True, lines.append).of(lambda x: x.square().sum())
    for _ in range(2):
        x.grad = None
        function(x).backward()
        assert x.grad.tolist() == [2.0] * 4
    assert len(lines) == 1


def test_errors_of_what_is_compiled_are_not_hidden(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda f, **_: broken)
    lines = []
    with pytest.raises(RuntimeError, match="out of memory"):
        Compilation(True, lines.append).of(abs)(1)
    assert lines == []


def test_the_line_names_the_cause() -> None:
    lines = []

    def compiled(*_: object) -> None:
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InvalidCxxCompiler

        raise BackendCompilerFailed(failing, InvalidCxxCompiler(), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda f, **_: compiled)
        assert Compilation(True, lines.append).of(abs)(-1) == 1
    assert "No working C++ compiler" in lines[0]
    assert "\n" not in lines[0]


# --------------------------------------------------------------------------- captured


class FakeCuda:
    """Stands in for torch.cuda's streams and graphs and notes what is asked of them.

    A replay runs the captured function again and writes its results where the first ones are, as a GPU would. What a
    capture forbids, a GPU has to say.
    """

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.capturing = False
        self.CUDAGraph = lambda: self
        self.Stream = lambda: self

    def wait_stream(self, other: object) -> None:
        self.calls.append("wait")

    def current_stream(self) -> "FakeCuda":
        return self

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.calls.append("beside")
        yield

    @contextmanager
    def graph(self, graph: object, capture_error_mode: str) -> Iterator[None]:
        self.calls.append("capture")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.capturing = True
        yield
        self.capturing = False

    def replay(self) -> None:
        self.calls.append("replay")
        self.replayed()


def captured(monkeypatch, compute: Callable, fails: bool = False) -> tuple[CapturedStep, FakeCuda, list[str]]:
    cuda, lines = FakeCuda(fails), []
    for name in ("CUDAGraph", "Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    return CapturedStep(compute, lines.append), cuda, lines


def some_inputs(step: TrainStep, number: int) -> StepInputs:
    return step.inputs(padded(a_batch(number, SIZE - number % 2)), number)


def test_capture_on_a_fake_gpu_warms_up_then_replays(monkeypatch) -> None:
    """Only the protocol: what is warmed up, captured once, copied into place and replayed."""
    step, seen, kept = a_step(), [], []

    def compute(inputs: StepInputs) -> StepInputs:
        seen.append(inputs)
        if not cuda.capturing:
            return inputs
        result = inputs._replace(images=torch.zeros(()))
        cuda.replayed = lambda: result.images.copy_(inputs.images.sum())
        return result

    run, cuda, lines = captured(monkeypatch, compute)
    for number in range(WARM_UP + 3):
        inputs = some_inputs(step, number)
        images = inputs.images.clone()
        kept.append((inputs.images, images))
        found = run(inputs)
        if number < WARM_UP:
            assert torch.equal(found.images, images)
        else:
            assert found.images.item() == images.sum().item()
    assert cuda.calls == ["wait", "beside", "wait"] * WARM_UP + ["capture"] + ["replay"] * 3
    assert len(seen) == WARM_UP + 1  # and never again
    assert len({value.images.data_ptr() for value in seen}) == 1
    assert len(kept) == len({images.data_ptr() for images, _ in kept} - {seen[0].images.data_ptr()})
    assert all(torch.equal(images, before) for images, before in kept)  # what was given is not written to
    assert seen[-1].presampled is step._buffers.noise  # refilled in place, not copied
    assert seen[-1].number is step._number
    assert lines == []


def test_capture_on_a_fake_gpu_that_refuses_goes_on_without(monkeypatch) -> None:
    """The same losses and weights as without, step by step."""
    plain, step = a_step(), a_step()
    step._run, cuda, lines = captured(monkeypatch, step.compute, fails=True)
    for number in range(WARM_UP + 2):
        batch = padded(a_batch(number, ROWS))
        assert numbers(step(batch, number, 1e-3)) == numbers(plain(batch, number, 1e-3))
    assert all(torch.equal(a, b) for a, b in zip(step.model.parameters(), plain.model.parameters(), strict=True))
    assert cuda.calls.count("capture") == 1
    assert "replay" not in cuda.calls
    assert lines == [
        "CUDA graph: not possible here (operation not permitted when stream is capturing); going on without"
    ]


def test_only_a_compiled_step_of_one_process_on_cuda_is_captured() -> None:
    for compilation in (EAGER, Compilation(True)):
        assert not isinstance(a_step(compilation)._run, CapturedStep)
    assert isinstance(a_step().objective, Objective)
