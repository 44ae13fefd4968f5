"""Spatial-block permutation test: values such as labels are permuted between whole blocks of neighbouring images.

Images of one area share cover and routing. A permutation of single images would break the spatial autocorrelation of
the labels, so even experts that follow nothing but the area would share more information with the true labels than with
permuted ones. So whole blocks are exchanged, as in Winkler et al., "Multi-level block permutation" (NeuroImage 123,
2015).

Blocks of one size are exchanged among themselves, which is exact where blocks are independent of each other. Of unequal
blocks, those that differ by less than a factor of two are (sizes 1, 2 to 3, 4 to 7, …; a size class with fewer than
`FEWEST` blocks joins the next smaller one), and the receiving block takes evenly spaced rows of the giving one: some
twice, some not at all. That is approximate: it assumes that values are independent of block size within such a class,
and where the images of a block have little in common it repeats them, so p-values are conservative.
With every image a block of its own it is the ordinary permutation test. Correlation beyond a block, as within one tile,
is not accounted for.
"""

from collections import Counter
from math import exp, lgamma

import numpy as np

FEWEST = 5
"""Blocks of a size class that are exchanged among themselves; fewer join the next class."""


def permute_blocks(blocks: np.ndarray | None, count: int, random: np.random.Generator) -> np.ndarray:
    """The row that every image receives in one random permutation of blocks, (N,) positions.

    Args:
        blocks: (N,) anything that names the block of every image; None makes every image one of its own.
        count: N.
        random: source of the permutation.
    """
    if blocks is None:
        return random.permutation(count)
    source = np.empty(count, int)
    for members in _classes(blocks):
        for place, giver in enumerate(random.permutation(len(members))):
            mine, theirs = members[place], members[giver]
            taken = (np.arange(len(mine)) + random.random()) * len(theirs) / len(mine)
            source[mine] = theirs[np.minimum(taken.astype(int), len(theirs) - 1)]
    return source


def smallest_p(values: np.ndarray, blocks: np.ndarray | None, shuffles: int) -> float:
    """The smallest p-value that a number of permutations can give, where the values have few distinct permutations.

    Args:
        values: (N, …) what is permuted.
        blocks: as for `permute_blocks`.
        shuffles: how many permutations.

    Returns:
        1 where there is only one distinct permutation.
    """
    rows = np.ascontiguousarray(values).reshape(len(values), -1)
    classes = _classes(np.arange(len(rows)) if blocks is None else blocks)
    ways = 0.0  # the logarithm of their number: blocks that have the same do not make another one
    for members in classes:
        alike = Counter(rows[one].tobytes() for one in members)
        ways += lgamma(len(members) + 1) - sum(lgamma(times + 1) for times in alike.values())
    return max(exp(-ways), 1 / (1 + shuffles))


def _classes(blocks: np.ndarray) -> list[list[np.ndarray]]:
    """The images of every block, in lists of exchangeable blocks."""
    _, block_of = np.unique(np.asarray(blocks), return_inverse=True)
    sizes = np.bincount(block_of)
    members = np.split(np.argsort(block_of, kind="stable"), np.cumsum(sizes)[:-1])
    classes = np.frexp(sizes)[1]  # 1, 2 to 3, 4 to 7, …
    for large in np.unique(classes)[:0:-1]:
        if (classes == large).sum() < FEWEST:
            classes[classes == large] = classes[classes < large].max()
    found = np.unique(classes)
    if len(found) > 1 and (classes == found[0]).sum() < FEWEST:
        classes[classes == found[0]] = found[1]
    return [[members[block] for block in np.flatnonzero(classes == one)] for one in np.unique(classes)]
