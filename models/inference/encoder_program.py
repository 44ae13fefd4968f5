"""The blocks of an encoder as an ONNX program: tokens with their positions to the tokens of the last block.

It is written from folded weights (`models.inference.folded`) in standard operators, in the order that suits the kernels
of a CPU: tokens of all patches as the rows of one matrix, a product each for queries, keys, values, experts, shared
branch and gate, whose results then are no slices of one another. A tracer's program of the same encoder takes half as
long again, and half a minute to make. Dimensions are those of `models.encoder`, G and R those of `models.attention`.
"""

from typing import Any

import numpy as np
from torch import Tensor

from models.attention import HIDDEN_KEY
from models.inference.folded import FoldedAttention, FoldedEncoder, FoldedExperts, FoldedLinear
from models.inference.onnx_graph import OnnxGraph

TOKENS, HIDDEN = "tokens", "hidden"
"""Inputs: (B, S, D), and (B, S), 1 for tokens that no other looks at, else 0; both float32."""

SENSITIVE = "sensitive"
"""What names of the products begin with that rounding harms most: of the gates, which choose, and the last one of the
experts, some of whose inputs are far larger than the others."""


def encoder_program(encoder: FoldedEncoder, with_hidden: bool) -> Any:
    """The program for any number of patches.

    Args:
        encoder: what it reads is what the program returns, (B, S, D) or the first tokens only.
        with_hidden: whether it has the second input; without it, no token is hidden.

    Returns:
        An `onnx.ModelProto`.
    """
    return _Program(encoder, with_hidden).model()


class _Program:
    def __init__(self, encoder: FoldedEncoder, with_hidden: bool) -> None:
        self.graph, self.encoder, self.with_hidden = OnnxGraph(), encoder, with_hidden
        _, self.S, self.D = encoder.encoder.pos_embed.shape
        self.ones = self.graph.constant(np.ones(self.D, np.float32))

    def model(self) -> Any:
        x = self.graph("Reshape", TOKENS, self.graph.integers(-1, self.D))
        *others, (attention, experts) = self.encoder.blocks
        for block in others:
            x = self.experts(self.attention(x, block[0], self.S), block[1])
        read = self.encoder.read or self.S
        x = self.experts(self.attention(x, attention, read), experts)
        output = self.graph("Reshape", x, self.graph.integers(-1, read, self.D))
        inputs = {TOKENS: ("B", self.S, self.D), **({HIDDEN: ("B", self.S)} if self.with_hidden else {})}
        return self.graph.model(inputs, output, ("B", read, self.D))

    def attention(self, x: str, attention: FoldedAttention, read: int) -> str:
        """`x + attention(norm(x))` of (B S, D) tokens; only of the first `read` of every patch: (B read, D)."""
        graph, (G, R, d), S = self.graph, attention.shape, self.S
        normed = self.standardised(x, attention.norm.eps)
        queries, keys, values = self.parts(attention.project, [G * R * d, G * d, G * d])
        q = self.linear(self.first(normed, read), queries)
        q = graph("Transpose", graph("Reshape", q, graph.integers(-1, read, G, R, d)), perm=[0, 2, 3, 1, 4])
        q = graph("Reshape", q, graph.integers(-1, G, R * read, d))
        k, v = (
            graph("Transpose", graph("Reshape", self.linear(normed, part), graph.integers(-1, S, G, d)), perm=axes)
            for part, axes in ((keys, [0, 2, 3, 1]), (values, [0, 2, 1, 3]))
        )
        scores = graph("MatMul", q, k)  # (B, G, R read, S)
        if self.with_hidden:
            never = graph("Mul", HIDDEN, graph.constant(np.float32(HIDDEN_KEY * d**-0.5)))
            scores = graph("Add", scores, graph("Reshape", never, graph.integers(-1, 1, 1, S)))
        out = graph("MatMul", graph("Softmax", scores, axis=-1), v)
        out = graph("Reshape", out, graph.integers(-1, G, R, read, d))
        out = graph("Reshape", graph("Transpose", out, perm=[0, 3, 1, 2, 4]), graph.integers(-1, G * R * d))
        return graph("Add", self.first(x, read), self.linear(out, attention.out))

    def experts(self, x: str, experts: FoldedExperts) -> str:
        """`x + experts(norm(x))` of (T, D) tokens."""
        graph, E, d = self.graph, experts.count, experts.width
        normed = self.standardised(x, experts.norm.eps)
        parts = self.parts(experts.project, [E * d, d, *([E] if experts.k else [])])
        hidden, value = (self.linear(normed, part) for part in parts[:2])
        hidden = graph("Mul", hidden, graph("Sigmoid", hidden))
        if not experts.k:
            return graph("Add", x, self.linear(graph("Mul", hidden, value), experts.out, SENSITIVE))
        gates = self.gates(self.linear(normed, parts[2], SENSITIVE), experts.k)
        each = graph("Reshape", hidden, graph.integers(-1, E, d))
        chosen = graph("MatMul", graph("Reshape", gates, graph.integers(-1, 1, E)), each)
        hidden = graph("Mul", graph("Reshape", chosen, graph.integers(-1, d)), value)
        if experts.k > 1:
            return graph("Add", x, self.linear(hidden, experts.out, SENSITIVE))
        # A single gate is below 1, and with it the share of the offset.
        total = graph("ReduceSum", gates, graph.integers(-1), keepdims=1)
        offset = graph("Mul", total, self.weights(experts.out.bias))
        out = graph("MatMul", hidden, self.weights(experts.out.weight.T), label=SENSITIVE)
        return graph("Add", graph("Add", x, offset), out)

    def gates(self, logits: str, k: int) -> str:
        """(T, E) scores to gates, as `FoldedExperts.gates`."""
        graph = self.graph
        values, places = graph.several("TopK", 2, logits, graph.integers(k), axis=-1)
        if k == 1:
            values = graph(
                "Exp", graph("Sub", values, graph("ReduceLogSumExp", logits, graph.integers(-1), keepdims=1))
            )
        else:
            values = graph("Softmax", values, axis=-1)
        zeros = graph("ConstantOfShape", graph("Shape", logits))
        return graph("ScatterElements", zeros, places, values, axis=-1)

    def first(self, x: str, read: int) -> str:
        """(B S, D) to the first tokens of every patch, (B read, D)."""
        if read == self.S:
            return x
        graph = self.graph
        tokens = graph("Reshape", x, graph.integers(-1, self.S, self.D))
        kept = graph("Slice", tokens, graph.integers(0), graph.integers(read), graph.integers(1))
        return graph("Reshape", kept, graph.integers(-1, self.D))

    def standardised(self, x: str, eps: float) -> str:
        return self.graph("LayerNormalization", x, self.ones, axis=-1, epsilon=eps)

    def linear(self, x: str, weights: FoldedLinear, label: str = "") -> str:
        """A product and a sum, which runtimes compute as one."""
        product = self.graph("MatMul", x, self.weights(weights.weight.T), label=label)
        return self.graph("Add", product, self.weights(weights.bias))

    def parts(self, weights: FoldedLinear, widths: list[int]) -> list[FoldedLinear]:
        """A linear layer as several with so many outputs."""
        return [FoldedLinear(*part) for part in zip(*(given.split(widths) for given in weights), strict=True)]

    def weights(self, values: Tensor) -> str:
        return self.graph.constant(values.detach().numpy())
