"""The memory that a fit of the probe needs, by solver."""

from classification_models.feature_rows import CPU_CHUNK_BYTES, CUDA_CHUNK_BYTES
from classification_models.preconditioned_lbfgs import HISTORY
from classification_models.preconditioner import GRAM_CHUNK_BYTES, STRIP, block_edges
from classification_models.solvers import PRECONDITIONED, SOLVERS, Size


def memory_needs(solver: str, size: Size, itemsize: int, threads: int, gpu: bool = False) -> dict[str, int]:
    """What a fit takes beside the features as they are given: names to bytes.

    Args:
        solver: a key of `SOLVERS`.
        size: of the problem.
        itemsize: bytes of a feature as given.
        threads: labels that scikit-learn's solvers fit at a time, or chunks that the other visits at a time.
        gpu: chunks are sized for a GPU.
    """
    count, width, columns = size.count, size.width, size.columns
    whole = 8 * count * width
    if solver != PRECONDITIONED:
        single = SOLVERS[solver].stochastic and itemsize <= 4
        # scikit-learn's solvers work on a copy: float64 but for the stochastic ones, which keep float32.
        needs = {"features of the solver": whole // 2 if single else whole}
        if solver == "newton-cholesky":
            needs["Hessians"] = threads * (whole + 3 * 8 * size.unknowns**2)
        return needs | {"logits": 4 * 8 * count * columns}
    blocks = [stop - start for start, stop in block_edges(width)]
    chunks = 3 * GRAM_CHUNK_BYTES + 6 * (CUDA_CHUNK_BYTES if gpu else threads * CPU_CHUNK_BYTES)
    return {
        "XᵀX and its factor": 8 * (sum(block**2 for block in blocks) + max(blocks) ** 2),
        "chunks": min(3 * whole, chunks) + 8 * max(blocks) * min(max(blocks), STRIP),
        "history": 8 * columns * (width + 1) * (2 * HISTORY + 12),
        "logits": 8 * 8 * count * columns,
    }
