"""The signals that end a training run: Ctrl-C between two steps, SIGTERM and SIGHUP at once, and none of them inside a step.

    stop_signals()          inside, SIGTERM and SIGHUP raise a SystemExit, and Ctrl-C sets the Event `stop`
    put_off()               inside, they wait: what changes or saves a run is done as a whole
"""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignals:
    """What the signals of this process ask of a training run; made by `stop_signals`."""

    def __init__(self, stop: threading.Event):
        self.stop = stop                                        # set by Ctrl-C: stop after this step
        self._late, self._depth = None, 0

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Inside, no signal raises an exception: what changes or saves a run is done as a whole."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._late and not self._depth:
            late, self._late = self._late, None
            raise late

    def interrupt(self, number: int, frame: object) -> None:
        """The handler of Ctrl-C."""
        if self.stop.is_set():
            self._raise(KeyboardInterrupt())
        self.stop.set()

    def end(self, number: int, frame: object) -> None:
        """The handler of signals that end a process."""
        self._raise(SystemExit(128 + number))

    def _raise(self, error):
        if not self._depth:
            raise error
        self._late = error


@contextmanager
def stop_signals(stop: threading.Event | None = None) -> Iterator[StopSignals]:
    """Handle Ctrl-C and the signals that end a process, as long as the block runs.

    Ctrl-C sets `stop`, by default a fresh Event; a second Ctrl-C interrupts at once. SIGTERM, SIGHUP and SIGBREAK raise a
    SystemExit. A signal that is ignored (as SIGHUP is under `nohup`) or has a handler of its own keeps it. Outside the main
    thread nothing is handled, because Python calls handlers in the main thread only.
    """
    signals, previous = StopSignals(stop or threading.Event()), {}
    handlers = {"SIGINT": signals.interrupt, "SIGTERM": signals.end, "SIGHUP": signals.end, "SIGBREAK": signals.end}
    if threading.current_thread() is threading.main_thread():
        for name, handler in handlers.items():
            number = getattr(signal, name, None)                # Windows has no SIGHUP, all others no SIGBREAK
            usual = (signal.SIG_DFL, signal.default_int_handler)
            if number is not None and signal.getsignal(number) in usual:
                previous[number] = signal.signal(number, handler)
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
