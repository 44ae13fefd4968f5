"""SIGTERM and SIGINT: a request to stop at the next safe moment."""

import signal
from types import FrameType


class StopRequested(BaseException):
    """Raised by a signal while there is nothing to save yet."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignals:
    """While in this context, SIGTERM and SIGINT ask for a stop instead of killing.

    Attributes:
        received: the signal's number, None as long as there was none.
        at_a_step: True while steps run: the loop then looks at `received` after each of them. Before and after, a
            signal raises `StopRequested` at once.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_a_step = False

    def __enter__(self) -> "StopSignals":
        self._earlier = {number: signal.signal(number, self._on_signal) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self.at_a_step:
            raise StopRequested(number)

    @staticmethod
    def exit_code(number: int) -> int:
        """0 after SIGTERM (the run can go on), 130 after Ctrl-C."""
        return 130 if number == signal.SIGINT else 0
