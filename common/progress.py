"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from common import logs

SECONDS_BETWEEN_LOG_LINES = 10.0


class Progress:
    """Counts units of work done.

    On a terminal it draws a bar that is renewed in place; where standard error goes to a file, or
    the log is JSON, it logs the same line every ten seconds, so that logs stay readable.

    Args:
        total: units of work in all.
        unit: what one unit is called, for example "img".
        description: what is going on, for example "training".
        initial: units that an earlier run has done already.
        unit_scale: whether large counts are shown as k, M, G.
    """

    def __init__(
        self, total: int, unit: str, description: str, initial: int = 0, unit_scale: bool = False
    ):
        self._total, self._unit, self._description = total, unit, description
        self._initial, self._done = initial, initial
        self._unit_scale = unit_scale
        self._start = self._last_line = time.monotonic()
        self._note = ""
        self._bar = None
        if sys.stderr.isatty() and not logs.is_json():
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=description,
                unit=unit,
                unit_scale=unit_scale,
                leave=False,
            )

    def update(self, count: int, note: str = "") -> None:
        """Adds `count` finished units; `note` (loss, accuracy) is shown behind the rate."""
        self._done += count
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LOG_LINES:
            self._last_line = time.monotonic()
            logging.info(self._line())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _line(self) -> str:
        return tqdm.format_meter(
            self._done,
            self._total,
            time.monotonic() - self._start,
            initial=self._initial,
            prefix=self._description,
            unit=self._unit,
            unit_scale=self._unit_scale,
            postfix=self._note,
            ncols=110,
        )
