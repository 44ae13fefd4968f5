"""Synthetic embeddings for timing the probe: a function of the seed, and as ill-conditioned as real ones.

Features are mixtures of a few hundred hidden factors of decreasing strength, so that they are strongly correlated;
their scales are spread over two decades and their means are not zero. Labels depend on the factors, the weak ones as
much as the strong ones, so that a solver must get the directions of small variance right, too.
"""

import numpy as np

FACTORS = 256
"""Hidden factors, as many as features at most."""

FACTOR_DECAY = 0.75
"""The k-th factor is k^-0.75 as strong as the first."""

NOISE = 0.02
"""Of every feature on its own, relative to its spread."""

SCALE_DECADES = 2.0
"""From the feature of smallest spread to that of the largest."""

SIGNAL = 2.0
"""Standard deviation of the logits that the labels are drawn from."""

RAREST, COMMONEST = -6.0, 0.0
"""Offsets of the labels' logits if there are several labels: from about one patch in 60 to every second one."""

BLOCK = 4096
"""Rows drawn from one random stream, so that a longer problem begins with the rows of a shorter one."""


def probe_problem(
    rows: int, width: int, classes: int, multilabel: bool, seed: int, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a classification problem that plain gradient methods find hard.

    Args:
        rows: N.
        width: D.
        classes: K classes or labels.
        multilabel: independent labels of different frequency, instead of one class each.
        seed: of everything random.
        out: float32 (N, D), such as a memory map, to write the features into; by default a new array.

    Returns:
        Features (N, D) float32, and class indices (N,) int64 or labels (N, K) int8.
    """
    random = np.random.default_rng(seed)
    factors = min(FACTORS, width)
    strength = np.arange(1, factors + 1)[:, None] ** -FACTOR_DECAY
    mixing = strength * random.standard_normal((factors, width))
    scale = 10 ** random.uniform(-SCALE_DECADES / 2, SCALE_DECADES / 2, width)
    mixing = (mixing * (scale / np.linalg.norm(mixing, axis=0))).astype(np.float32)
    mean = (scale * random.standard_normal(width)).astype(np.float32)
    noise = (NOISE * scale).astype(np.float32)
    planted = (SIGNAL / np.sqrt(factors) * random.standard_normal((factors, classes))).astype(np.float32)
    offsets = np.linspace(RAREST, COMMONEST, classes)
    x = np.empty((rows, width), np.float32) if out is None else out
    y = np.empty((rows, classes), np.int8) if multilabel else np.empty(rows, np.int64)
    for block, start in enumerate(range(0, rows, BLOCK)):
        random = np.random.default_rng([seed, block])
        hidden = random.standard_normal((BLOCK, factors), dtype=np.float32)
        logits = hidden @ planted
        if multilabel:
            labels = logits + offsets + random.logistic(size=logits.shape) > 0
        else:
            labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
        kept = min(BLOCK, rows - start)
        y[start : start + kept] = labels[:kept]
        own = random.standard_normal((kept, width), dtype=np.float32)
        x[start : start + kept] = hidden[:kept] @ mixing + mean + noise * own
    return x, y
