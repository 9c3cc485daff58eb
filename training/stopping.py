"""Stopping in time: what happens when a scheduler, or a person, asks a run to end.

SIGTERM (and the first Ctrl-C) is noted by a thread that waits for it, so that it is heard in the
first compilation and in the middle of a long call as well, and no library can take it away. As long
as there is nothing to save the process ends at once; later the trainer asks `requested()` between
two calls, saves, and ends. The exit code tells schedulers that the same command goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from common.errors import RESUME_ME, UserError

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_POLL_SECONDS = 0.2


class Stopped(UserError):
    """The run was asked to end, or lost another worker; the same command goes on."""

    exit_code = RESUME_ME
    label = ""  # it is no error


class StopRequest:
    """Whether the run was asked to end, and whether it may end at once."""

    def __init__(self):
        self._event = threading.Event()
        self._name = ""
        self._nothing_to_save = True

    def requested(self) -> bool:
        """Whether the run was asked to end."""
        return self._event.is_set()

    @property
    def signal_name(self) -> str:
        """By which signal; empty as long as there was none."""
        return self._name

    def something_to_save(self) -> None:
        """From now on a signal is a request only: there is progress that is not saved."""
        self._nothing_to_save = False

    def nothing_to_save(self) -> None:
        """From now on a signal ends the process at once: all progress is saved."""
        self._nothing_to_save = True

    def take_handlers(self) -> None:
        """Has Python hear what reaches a thread from before the block, in the main thread.

        To be called again after a library has put a handler of its own there, as TensorFlow's
        coordination service does for SIGTERM.
        """
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, lambda number, _: self.hear(number))

    def hear(self, number: int) -> None:
        """What the thread does with a signal."""
        if self._event.is_set() and number == signal.SIGINT:
            os._exit(130)  # the second Ctrl-C: at once
        self._name = signal.Signals(number).name
        self._event.set()
        if self._nothing_to_save:
            text = (
                f"stopped by {self._name}: nothing was trained that is not saved; the same command"
            )
            print(f"{text} goes on", file=sys.stderr, flush=True)
            os._exit(RESUME_ME)


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Notes SIGTERM and Ctrl-C in the block; to be entered before TensorFlow starts its threads."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # Blocked signals reach no thread but the one that waits for them; threads inherit this.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Threads from before the block may still be given the signal: then Python hears it.
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    request.take_handlers()
    ended = threading.Event()

    def wait() -> None:
        while not ended.is_set():
            heard = signal.sigtimedwait(_SIGNALS, _POLL_SECONDS)
            if heard and not ended.is_set():
                request.hear(heard.si_signo)

    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    try:
        yield request
    finally:
        ended.set()
        thread.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
