"""Faster ways to an embedding: the tokens of PyTorch to 1e-4, with fill and without, or one line."""

import threading
from concurrent.futures import CancelledError

import pytest
import torch

from models import ModelConfig, build_model
from models.inference import runtimes
from models.inference.embedder import Embedder
from models.inference.encoder_program import encoder_program
from models.inference.folded import FoldedEncoder
from models.inference.micro_batches import MicroBatches, Parts
from models.inference.runtimes import CHOICES, RUNTIMES, choose_runtime
from utils.errors import ConfigError
from utils.threads import torch_threads

NUMBERS = {"embed_dim": 24, "depth": 2, "num_heads": 4, "num_groups": 2, "dfirsth": 16, "dlasth": 8}


def tiny_model(**numbers: object):
    """A small encoder whose LayerNorms are not the ones that it is built with."""
    model = build_model(ModelConfig.of_size("XXS", **{**NUMBERS, **numbers}), seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


FORMS = [{}, {"experts": 1}, {"k": 1}, {"k": 3, "experts": 4}, {"num_groups": 4}, {"depth": 3, "read_depth": 2}]
"""Kinds of layers."""


def in_pytorch(model, images, meta, visible=None, bands=None):
    with torch.no_grad():
        return model.encode(images, meta, visible=visible, bands=bands, noise=False).pre_norm


def random_visible(model, count):
    return torch.rand(count, model.config.num_patches, generator=torch.Generator().manual_seed(2)) > 0.4


def assert_same_tokens(found, expected, visible, num_prefix):
    """But for those of hidden patches, which only fill up the shape; `found` may be the first tokens only."""
    expected = expected[:, : found.shape[1]]
    if visible is not None:
        kept = torch.cat([torch.ones(len(found), num_prefix, dtype=torch.bool), visible], dim=1)[:, : found.shape[1]]
        expected, found = expected[kept], found[kept]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("read", [None, 5, 1])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("numbers", FORMS)
def test_folded_weights_give_the_tokens_of_pytorch(numbers, hidden, read):
    model = tiny_model(**numbers)
    images, meta = runtimes._random_patches(model, 5)
    visible = random_visible(model, 5) if hidden else None
    found = FoldedEncoder(model.encoder, read)(images, meta, visible)
    assert found.shape[1] == (read or model.config.num_tokens)
    assert_same_tokens(found, in_pytorch(model, images, meta, visible), visible, model.config.num_prefix)


@pytest.mark.parametrize("read", [None, 5])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("numbers", FORMS)
def test_a_program_gives_the_tokens_of_pytorch(numbers, hidden, read):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = tiny_model(**numbers)
    images, meta = runtimes._random_patches(model, 11)
    visible = random_visible(model, 11) if hidden else None
    bands = runtimes._random_bands(model, 11)
    found = RUNTIMES["onnxruntime"].build(model, read)(images, meta, visible, bands)
    assert_same_tokens(found, in_pytorch(model, images, meta, visible, bands), visible, model.config.num_prefix)


def test_a_program_is_of_standard_operators_and_passes_the_checks_of_onnx():
    onnx = pytest.importorskip("onnx")
    for hidden in (False, True):
        program = encoder_program(FoldedEncoder(tiny_model().encoder), hidden)
        onnx.checker.check_model(program, full_check=True)
        assert {node.domain for node in program.graph.node} == {""}


def test_micro_batches_are_the_same_on_any_number_of_threads():
    model = tiny_model()
    images, meta = runtimes._random_patches(model, 11)
    visible = torch.rand(11, model.config.num_patches, generator=torch.Generator().manual_seed(2)) > 0.4
    bands = runtimes._random_bands(model, 11)
    folded, found = FoldedEncoder(model.encoder), {}
    parts = [slice(start, start + 2) for start in range(0, 11, 2)]
    with torch_threads(1):
        one_by_one = torch.cat([folded(images[part], meta[part], visible[part], bands[part]) for part in parts])
    for count in (1, 3):
        with torch_threads(count):
            found[count] = MicroBatches(folded, 2)(images, meta, visible, bands)
            assert torch.get_num_threads() == count
    assert torch.equal(found[1], one_by_one) and torch.equal(found[3], one_by_one)


def test_parts_within_parts_and_parts_that_are_begun():
    """Inner ones are done by the thread of the outer; what is begun is at work before anybody asks for it."""
    started = threading.Event()

    def outer(rows: slice) -> list[tuple[int, int]]:
        started.set()
        count, threads = len(range(10)[rows]), torch.get_num_threads()
        return Parts(lambda inner: (rows.start + inner.start, threading.get_ident()), count, 1, threads).results()

    begun = Parts(outer, 10, 4, threads=2)
    assert started.wait(10)
    found = begun.results()
    assert [[row for row, _ in part] for part in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(len({thread for _, thread in part}) == 1 for part in found)
    assert {thread for part in found for _, thread in part}.isdisjoint({threading.get_ident()})
    assert Parts(lambda rows: (rows.start, rows.stop), 0, 4, threads=2).results() == [(0, 4)]
    alone = Parts(lambda rows: threading.get_ident(), 10, 4, threads=1)
    assert set(alone.results()) == {threading.get_ident()}


def test_parts_that_nobody_waits_for_are_left_out():
    done, may_go_on = [], threading.Event()

    def work(rows: slice) -> None:
        may_go_on.wait(10)
        done.append(rows.start)

    begun = Parts(work, 100, 1, threads=2)
    begun.cancel()
    may_go_on.set()
    with pytest.raises(CancelledError):
        begun.results()
    assert len(done) <= 2

    def fails_first(rows: slice) -> None:
        if rows.start == 0:
            raise ConfigError("no such patch")
        may_go_on.wait(10)
        done.append(rows.start)

    may_go_on.clear()
    begun, before = Parts(fails_first, 100, 1, threads=2), len(done)
    with pytest.raises(ConfigError, match="no such patch"):
        begun.results()
    may_go_on.set()
    assert len(done) - before <= 2


def test_a_failure_on_a_thread_ends_the_batch():
    def refuse(*_: object) -> torch.Tensor:
        raise ConfigError("no such patch")

    with pytest.raises(ConfigError, match="no such patch"):
        MicroBatches(refuse)(torch.zeros(40, 1), torch.zeros(40, 1), None, None)


@pytest.mark.parametrize("pool", ["mean", "cls", "meta_cls", "summary"])
def test_an_embedder_pools_what_another_runtime_computes(pool):
    model = tiny_model()
    images, meta = runtimes._random_patches(model, 3)
    some = random_visible(model, 3)
    plain, folded = (Embedder(model, pool, backend=name) for name in ("torch", "folded"))
    for given, visible in ((meta, None), (None, None), (meta, some)):
        found, expected = (embedder.of_visible(images, given, visible) for embedder in (folded, plain))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="float32"):
        Embedder(model, "mean", backend="folded", autocast=torch.bfloat16)


def nothing_installed(monkeypatch):
    """No package of any runtime is."""
    for name, runtime in RUNTIMES.items():
        if runtime.packages:
            monkeypatch.setitem(RUNTIMES, name, runtime._replace(packages=("no_such_package",)))


def test_what_differs_is_refused_by_name_and_passed_over_by_auto(monkeypatch):
    model = tiny_model()
    wrong = RUNTIMES["folded"]._replace(
        build=lambda model, read: lambda images, meta, visible, bands: torch.zeros(4, 105, 24)
    )
    nothing_installed(monkeypatch)
    monkeypatch.setitem(RUNTIMES, "folded", wrong)
    with pytest.raises(ConfigError, match="away from PyTorch"):
        choose_runtime("folded", model, 1)
    assert choose_runtime("auto", model, 5000)[0] == "torch"


def test_auto_takes_the_fastest_and_tries_nothing_for_few_patches(monkeypatch):
    model = tiny_model()
    names = []
    nothing_installed(monkeypatch)
    monkeypatch.setattr(runtimes._Check, "seconds", lambda self, encode: names.append(encode) or 1 / len(names))
    assert choose_runtime("auto", model, 5000)[0] == "folded" and len(names) == 2
    assert choose_runtime("auto", model, 10)[0] == "torch" and len(names) == 2


def test_a_missing_package_and_an_unknown_name_are_one_line(monkeypatch):
    model = tiny_model()
    nothing_installed(monkeypatch)
    with pytest.raises(ConfigError, match="pip install no_such_package"):
        choose_runtime("openvino", model, 1)
    with pytest.raises(ConfigError, match=f"use {', '.join(CHOICES)}"):
        choose_runtime("tensorrt", model, 1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_runtimes_pass_the_check_and_what_is_all_visible_has_the_same_bits(name):
    pytest.importorskip("onnx")
    pytest.importorskip(name)
    model = tiny_model(depth=1)
    images, meta = runtimes._random_patches(model, 3)
    found, encode = choose_runtime(name, model, 1)  # compares
    tokens = encode(images, meta, None, None)
    assert found == name and tokens.shape == (3, model.config.num_tokens, 24)
    assert torch.equal(encode(images, meta, torch.ones(3, model.config.num_patches, dtype=torch.bool), None), tokens)


@pytest.mark.programs
def test_eight_bits_are_nearly_pytorchs_and_only_used_when_asked_for(monkeypatch):
    pytest.importorskip("onnxruntime.quantization")
    # Of real widths. ONNX Runtime before 1.25 computes products of 8-bit integers wrongly on processors with AMX.
    model = build_model(ModelConfig.of_size("XXS", depth=1, experts=3), seed=0).eval()
    images, meta = runtimes._random_patches(model, 3)
    name, encode = choose_runtime("onnxruntime-int8", model, 1)
    with torch.no_grad():
        expected = model.encode(images, meta, noise=False).pre_norm
    difference = (encode(images, meta, None, None) - expected).square().mean() / expected.square().mean()
    assert name == "onnxruntime-int8" and 1e-10 < difference < 1e-2
    monkeypatch.setattr(runtimes, "ROUNDED", 1e-6)
    with pytest.raises(ConfigError, match=r"onnxruntime-int8 is .*% away from PyTorch"):
        choose_runtime("onnxruntime-int8", model, 1)


def test_auto_never_takes_what_is_not_exact(monkeypatch):
    other = RUNTIMES["folded"]._replace(packages=("no_such_package",))
    for name in RUNTIMES:
        if name != "torch" and RUNTIMES[name].exact:
            monkeypatch.setitem(RUNTIMES, name, other)
    tried = RUNTIMES["onnxruntime-int8"]._replace(build=lambda model, read: pytest.fail("was built"), packages=())
    monkeypatch.setitem(RUNTIMES, "onnxruntime-int8", tried)
    assert choose_runtime("auto", tiny_model(), 10**9)[0] == "torch"
