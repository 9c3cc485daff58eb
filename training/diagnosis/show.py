"""The diagnosis as people read it: rates with bars, checks, the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from training.diagnosis.checks import ERROR, OK, WARNING, Finding
from training.diagnosis.verdict import STAGES, Measurements, Verdict

_BAR_CELLS = 30
_WIDTH = 110  # of a log; a terminal has its own
_COLOURS = {OK: "green", WARNING: "yellow", ERROR: "red"}
_WORDS = {
    "read": "read: records from the shards",
    "decode": "decode: whole photos, nothing else",
    "augment": "augment: the whole input pipeline",
    "step": "step: on a batch that is there",
    "host": "host: the loop, shards to weights",
}


def show(
    notes: Sequence[str], findings: Sequence[Finding], measured: Measurements, verdict: Verdict
) -> None:
    """Prints tables and verdict.

    Args:
        notes: what is known of the machine, and was switched on.
        findings: of the checks.
        measured: the rates.
        verdict: what follows from them.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    for note in notes:
        console.print(note, markup=False)
    console.print()
    checks = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        colour = _COLOURS[finding.level]
        checks.add_row(finding.check, f"[{colour}]{finding.level}[/]", _plain(finding.text))
    console.print(checks)
    console.print()
    rates = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "images/s", "ms/image", "", ""):
        rates.add_column(name, justify="right" if "/" in name else "left", no_wrap=True)
    values = {stage: getattr(measured, stage) for stage in STAGES} | measured.settings
    for name, rate in values.items():
        rates.add_row(
            _WORDS.get(name, f"step: with {name}"),
            f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
            f"{1000 / rate:.2f}",
            bar(rate, max(measured.augment, measured.step, measured.decode)),
            "<- binds" if name == verdict.binds else "",
        )
    console.print(rates)
    step = measured.batch_size / measured.step
    console.print(f"\na step takes {step * 1000:,.1f} ms for a batch of {measured.batch_size}")
    console.print(f"verdict: {verdict.summary}", markup=False)
    for remedy in verdict.remedies:
        console.print(f"  - {remedy}", markup=False)


def bar(value: float, full: float) -> str:
    """A bar for `value`; one for `full` or more takes all cells, and says so."""
    cells = _BAR_CELLS * value / full
    if cells > _BAR_CELLS + 0.5:
        return "█" * (_BAR_CELLS - 1) + "▶"
    eighths = round(cells * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _plain(text: str):
    from rich.text import Text

    return Text(text)
