"""Solvers of the probe, and which one is chosen."""

from typing import NamedTuple

from utils.errors import ConfigError

PRECONDITIONED = "preconditioned-lbfgs"

NEWTON_MAX_WORK = 2**29
"""`auto` takes `newton-cholesky` while one iteration on all labels costs at most this many multiply-adds.

That is about 0.1 s on one core, and exact to rounding after some six of them. Beyond, `preconditioned-lbfgs` is faster,
the more so the larger the problem: 14 times at 16,200 x 144 and 10 classes.
"""


class Solver(NamedTuple):
    """Default settings of a solver."""

    max_iter: int
    tol: float  # of the relative gap for preconditioned-lbfgs, else of the gradient or (stochastic) the coefficients
    stochastic: bool = False  # keeps the features' precision, and stops on the change of the coefficients


SOLVERS = {
    "newton-cholesky": Solver(100, 1e-6),
    PRECONDITIONED: Solver(2000, 1e-6),
    "lbfgs": Solver(5000, 1e-6),
    "newton-cg": Solver(1000, 1e-6),
    "sag": Solver(1000, 1e-4, stochastic=True),  # with C = 1: Landsat-Bench's probe (arXiv:2506.08780)
    "saga": Solver(1000, 1e-4, stochastic=True),
}


ROW_SPACE_TOL = 1e-10
"""Largest gradient that Newton's method ends with in the space of rows: 2 to 6 more iterations than with 1e-6, and the
objective is proven to a millionth up to C = 10,000 for 119 x 15,120."""


class Size(NamedTuple):
    """How large a problem is."""

    count: int  # rows
    width: int  # features
    columns: int  # labels or classes; 1 for two classes
    multinomial: bool  # the columns are fitted together

    @property
    def unknowns(self) -> int:
        """Numbers fitted together."""
        return (self.width + 1) * (self.columns if self.multinomial else 1)

    @property
    def newton_work(self) -> int:
        """Multiply-adds for the Hessians of one iteration of Newton's method."""
        return self.count * self.unknowns**2 * (1 if self.multinomial else self.columns)


def check_solver(name: str, device: str) -> None:
    """See to it that a solver exists and runs where it is asked to.

    Args:
        name: "auto" or a key of `SOLVERS`.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: if not.
    """
    if name != "auto" and name not in SOLVERS:
        raise ConfigError(f"unknown solver {name!r}: choose auto, {', '.join(SOLVERS)}")
    if device.startswith("cuda") and name not in ("auto", PRECONDITIONED):
        raise ConfigError(f"solver {name!r} runs on the CPU only: use --device cpu or --solver {PRECONDITIONED}")


def choose_solver(name: str, size: Size, device: str = "auto") -> str:
    """Resolve "auto"; where a GPU is asked for it is `preconditioned-lbfgs`, the only one that runs there.

    Raises:
        ConfigError: for an unknown solver, or one that does not run on the device.
    """
    check_solver(name, device)
    if name != "auto":
        return name
    # Newton's method converges in a handful of iterations, but each factors a Hessian: cubic in the unknowns.
    small = size.newton_work <= NEWTON_MAX_WORK and not device.startswith("cuda")
    return "newton-cholesky" if small else PRECONDITIONED


def default_tolerance(solver: str, row_space: bool) -> float:
    """Where a solver stops unless it is told: in the space of few rows, values are small, and so must gradients be."""
    return ROW_SPACE_TOL if row_space and solver == "newton-cholesky" else SOLVERS[solver].tol
