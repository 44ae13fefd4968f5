"""With the published behaviour, an expert that no token of a step reached is left alone; by default it moves."""

from collections.abc import Callable, Iterator

import pytest
import torch
from host_reads import NoHostReads
from tiny_step import CONFIG, CPU, SIZE, a_batch
from torch import Tensor, nn

from configs.schema import TrainingSection
from models import MOEMAE, build_model
from models.losses import LossWeights
from models.moe import MoELayer
from training.optimizer import adamw, load_optimizer, optimizer_of
from training.step import StepOptions, TrainStep
from utils.compilation import EAGER, Compilation
from utils.errors import TrainingDiverged

PUBLISHED = CONFIG.replace(published_behaviour=True)
LR, DECAY = 1e-2, 0.3
CLOSED = {(0, "encoder"): range(2, 4), (1, "encoder"): range(4), (0, "decoder"): range(3, 4)}
"""Layer to the steps in which its last expert gets no token."""
STEPS = 5


def a_step(config=PUBLISHED, optimizer: str = "adamw", compilation: Compilation = EAGER) -> TrainStep:
    model = build_model(config, seed=0).train()
    section = TrainingSection(
        dataset_path="a", dataset_csv="b", weight_path="c", learning_rate=LR, weight_decay=DECAY, optimizer=optimizer
    )
    options = StepOptions(0, LossWeights(0.1, 50.0), 1.0, 0.0, None, SIZE)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainStep(model, optimizer_of(section, model, model, CPU), options, scaler, compilation=compilation)


def layers_of(model: MOEMAE) -> dict[tuple[int, str], MoELayer]:
    found = {(i, "encoder"): block.moe for i, block in enumerate(model.encoder.layers)}
    return found | {(i, "decoder"): block.moe for i, block in enumerate(model.decoder_layers)}


def close_gates(model: MOEMAE, number: int) -> None:
    """The last expert of some layers gets a score that no token follows, or a usual one again."""
    for key, steps in CLOSED.items():
        layers_of(model)[key].gate.Wg.bias.data[-1] = -1e4 if number in steps else 0.0


def train(step: TrainStep, numbers=range(STEPS)) -> TrainStep:
    for number in numbers:
        close_gates(step.model, number)
        step(published_batch(number), number, LR)
    return step


def published_batch(number: int):
    batch = a_batch(number)
    return batch._replace(valid=torch.ones_like(batch.valid))


class OneByOne:
    """The published way: every expert has a parameter of its own, without a gradient where no token reached it."""

    def __init__(self, step: TrainStep) -> None:
        self.step, self.reached = step, {}
        self.pieces: dict[str, list[nn.Parameter]] = {}
        for name, parameter in step.model.named_parameters():
            experts = self.experts(name)
            self.pieces[name] = [nn.Parameter(piece.detach().clone()) for piece in parameter.chunk(experts)]
        everything = [piece for pieces in self.pieces.values() for piece in pieces]
        self.optimizer = torch.optim.AdamW(everything, lr=LR, weight_decay=DECAY, fused=True)
        self.passed_over = 0
        for name, module in step.model.named_modules():
            if isinstance(module, MoELayer):
                module.register_forward_hook(self.note(f"{name}.experts.W."))
        step.optimizer.step = self.update

    def experts(self, name: str) -> int:
        layer = self.step.model.get_submodule(name.partition(".experts.W.")[0]) if ".experts.W." in name else None
        return layer.experts.experts if isinstance(layer, MoELayer) else 1

    def note(self, prefix: str):
        def hook(_module, _inputs, outputs):
            self.reached[prefix] = (outputs[1].gates > 0).any(dim=0)

        return hook

    def update(self) -> None:
        for name, parameter in self.step.model.named_parameters():
            reached = next((found for prefix, found in self.reached.items() if name.startswith(prefix)), [True])
            pieces, gradients = self.pieces[name], parameter.grad.chunk(len(self.pieces[name]))
            for piece, now, gradient, there in zip(
                pieces, parameter.detach().chunk(len(pieces)), gradients, reached, strict=True
            ):
                piece.data.copy_(now)  # the gates' biases are moved by hand
                piece.grad = gradient.clone() if there else None
                self.passed_over += not there
        self.optimizer.step()
        for name, parameter in self.step.model.named_parameters():
            parameter.data.copy_(torch.cat([piece.data for piece in self.pieces[name]]))


def difference(one: MOEMAE, other: MOEMAE) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_are_those_of_experts_with_parameters_of_their_own() -> None:
    """Several steps, with experts that are reached, left out and reached again, in encoder and decoder."""
    plain = OneByOne(a_step())
    assert difference(train(a_step()).model, train(plain.step).model) < 1e-6
    assert plain.passed_over == 2 * sum(map(len, CLOSED.values()))


@pytest.fixture(params=["adamw", "muon"])
def both(request) -> Iterator[tuple[TrainStep, TrainStep]]:
    """Two steps with that optimizer: one published, one not."""
    yield a_step(optimizer=request.param), a_step(CONFIG, request.param)


def test_an_expert_without_tokens_stays_and_by_default_it_moves(both) -> None:
    for step, stays in zip(both, (True, False), strict=True):
        train(step, range(2))
        for key, steps in CLOSED.items():
            experts = layers_of(step.model)[key].experts
            before = {name: rows(p, experts.experts).clone() for name, p in experts.W.named_parameters()}
            state = {name: state_of(step, p, experts.experts) for name, p in experts.W.named_parameters()}
            train(step, [next(number for number in steps if number >= 2)])
            for name, parameter in experts.W.named_parameters():
                now = rows(parameter, experts.experts)
                assert (now[:-1] != before[name][:-1]).any(), (key, name)
                assert torch.equal(now[-1], before[name][-1]) is stays, (key, name)
                assert not stays or all(map(torch.equal, state[name], state_of(step, parameter, experts.experts)))


def rows(values: Tensor, experts: int) -> Tensor:
    return values.detach().view(experts, -1)


def state_of(step: TrainStep, parameter: Tensor, experts: int) -> list[Tensor]:
    """What the optimizer keeps of the last expert."""
    values = step.optimizer.state[parameter].values()
    return [(rows(value, experts)[-1] if value.numel() > 1 else value).clone() for value in values]


def test_it_goes_on_to_the_bit_and_takes_up_what_an_earlier_version_saved(both) -> None:
    published, plain = both
    kind = "muon" if "Muon" in type(published.optimizer).__name__ else "adamw"
    first, second, whole = train(published, range(3)), a_step(optimizer=kind), train(a_step(optimizer=kind))
    second.model.load_state_dict(first.model.state_dict())
    load_optimizer(second.optimizer, first.optimizer.state_dict())
    assert difference(train(second, range(3, STEPS)).model, whole.model) == 0
    older = a_step(optimizer=kind)
    load_optimizer(older.optimizer, train(plain, range(3)).optimizer.state_dict())
    train(older, range(3, STEPS))
    counts = [older.optimizer.state[layer.experts.W.bias]["step"].tolist() for layer in layers_of(older.model).values()]
    skipped = [sum(number >= 3 for number in numbers) for numbers in CLOSED.values()]
    assert [(set(steps[:-1]), steps[-1]) for steps in counts] == [({STEPS}, STEPS - count) for count in skipped]


def test_a_step_that_is_not_finite_changes_nothing(both) -> None:
    step = train(both[0], range(2))
    before = [p.detach().clone() for p in step.model.parameters()]
    state = [value.clone() for values in step.optimizer.state.values() for value in values.values()]
    batch = published_batch(2)
    batch.images[0] = float("nan")
    step(batch, 2, LR)
    assert all(map(torch.equal, step.model.parameters(), before))
    now = [value for values in step.optimizer.state.values() for value in values.values()]
    assert all(map(torch.equal, now, state))
    with pytest.raises(TrainingDiverged, match="at step 2"):
        step.require_finite()


def test_nothing_waits_for_the_device_and_everything_stays_in_its_place(both) -> None:
    """So that a step can be captured as one graph and replayed."""
    step = train(both[0], range(1))
    places = [value.data_ptr() for values in step.optimizer.state.values() for value in values.values()]
    with NoHostReads():
        step(published_batch(1), 1, LR)
    assert places == [value.data_ptr() for values in step.optimizer.state.values() for value in values.values()]


@pytest.mark.programs
def test_compiled_steps_leave_it_alone_too(monkeypatch) -> None:
    compile_as_is, graphs, lines = torch.compile, [], []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, **kinds: compile_as_is(f, backend=backend, **kinds))
    torch.compiler.reset()
    step = train(a_step(compilation=Compilation(True, lines.append)), range(2))
    experts = layers_of(step.model)[0, "encoder"].experts
    before = rows(experts.W.weight, experts.experts).clone()
    train(step, [2])
    torch.compiler.reset()
    now = rows(experts.W.weight, experts.experts)
    assert torch.equal(now[-1], before[-1]) and (now[:-1] != before[:-1]).any(dim=1).all()
    assert len(graphs) == 1 and not lines


def test_the_optimizer_of_other_callers_does_the_same() -> None:
    model = build_model(PUBLISHED, seed=0)
    assert type(adamw(model, CPU, LR, DECAY)) is type(a_step().optimizer)
    assert type(adamw(build_model(CONFIG, seed=0), CPU, LR, DECAY)) is torch.optim.AdamW
