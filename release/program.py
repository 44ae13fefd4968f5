"""The encoder as one graph from digital numbers to embeddings, for PyTorch without this project and for ONNX.

Normalisation, fill and the encoding of time and place are inside, so that whoever runs it needs numpy and a runtime and
no table of statistics. Pixels are int32: wide enough for Collection-2 numbers, known to every runtime (uint16 is not),
and a type that reflectance, which the model does not know, cannot be passed as.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.inference.tensor_input import encoder_input
from models.kernels.backend import EXPORT
from models.moe import NO_NOISE
from models.moe_mae import MOEMAE
from models.pooling import pool_every_patch, pool_tokens
from utils.data_config import DATASETS
from utils.errors import UserError

INPUTS = ("pixels", "metadata")
OUTPUT = "embedding"
OWN_OPERATORS = "aten"
"""The namespace of PyTorch's own operators, the only ones that are everywhere."""


class EmbeddingProgram(nn.Module):
    """What `MOEMAE.embed` computes of patches of the model's size, as tensor operations only.

    Args:
        model: its encoder is used, its decoder left out.
        pool: a key of `models.pooling.POOLINGS`.
        statistics: the dataset whose mean and spread to normalise with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: MOEMAE, pool: str, statistics: str) -> None:
        super().__init__()
        self.encoder, self.pool, self.config = model.encoder, pool, model.config
        numbers = DATASETS[statistics].STATISTICS
        self.register_buffer("mean", torch.tensor(numbers.mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(numbers.std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, pixels: Tensor, metadata: Tensor) -> Tensor:
        """(N, 7, S, S) int32 digital numbers, 0 for fill, and (N, F) float32 columns of the model's metadata fields to
        (N, D) float32. The columns are in plain units (`utils.metadata.FIELDS`); NaN is what is not known.

        A patch of nothing but fill has NaN, unless the model takes fill for data.
        """
        tokens, num_prefix, visible = self.tokens(pixels, metadata)
        vectors = pool_tokens(tokens, self.pool, num_prefix, visible)
        return vectors if visible is None else torch.where(visible.any(dim=1, keepdim=True), vectors, math.nan)

    def tokens(self, pixels: Tensor, metadata: Tensor) -> tuple[Tensor, int, Tensor | None]:
        """(N, T, D) tokens before the final norm, how many come before those of the patches, and which patches can be
        seen, (N, n) bool; None where fill is taken for data."""
        noise = (NO_NOISE,) * len(self.encoder.layers)
        images, meta, visible = encoder_input(pixels, metadata, self.mean, self.std, self.config)
        encoded = self.encoder(images, meta, None, noise, EXPORT, visible, to_read=True)
        return encoded.pre_norm, encoded.num_prefix, visible


class MapProgram(EmbeddingProgram):
    """What scenes make of a window: a vector for every patch of it, whose mean is the pooled one."""

    def forward(self, pixels: Tensor, metadata: Tensor) -> Tensor:
        """The same arguments as an embedding's to (N, n, D) float32, n patches of a window row by row."""
        tokens, num_prefix, visible = self.tokens(pixels, metadata)
        whole = pool_tokens(tokens, "all", num_prefix, visible).unflatten(1, (tokens.shape[1], -1))
        return pool_every_patch(whole, self.pool, num_prefix, visible)


def trace(
    model: MOEMAE, pool: str, statistics: str, form: type[EmbeddingProgram] = EmbeddingProgram
) -> ExportedProgram:
    """The program of a model on the CPU, for any number of patches, of PyTorch's own operators only.

    Raises:
        UserError: where this version of PyTorch makes something else of it.
    """
    config = model.config
    program = form(model, pool, statistics).eval()
    pixels = torch.zeros(2, config.in_channels, config.img_size, config.img_size, dtype=torch.int32)
    patches = Dim("patches", min=1)
    exported = torch.export.export(
        program, (pixels, torch.zeros(2, len(config.meta_fields))), dynamic_shapes=({0: patches}, {0: patches})
    )
    if foreign := foreign_operators(exported):
        raise UserError(f"export: the program would need {', '.join(foreign)}, which PyTorch alone does not have")
    exported.example_inputs = None  # they would be pickled
    for graph in _graphs(exported):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)  # paths on this machine
    return exported


def foreign_operators(exported: ExportedProgram) -> list[str]:
    """Operators of a program that are not PyTorch's own."""
    targets = {node.target for graph in _graphs(exported) for node in graph.nodes if node.op == "call_function"}
    operators = (target for target in targets if isinstance(target, torch._ops.OpOverload))
    return sorted({str(operator) for operator in operators if operator.namespace != OWN_OPERATORS})


def _graphs(exported: ExportedProgram) -> Iterator[torch.fx.Graph]:
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield module.graph
