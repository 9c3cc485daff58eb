"""The gate's findings: a row an artifact, the table of them, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from common.errors import UserError

_WIDTH = 100  # of the table where there is no terminal


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """How far an artifact is from the Keras model, over all images.

    Attributes:
        artifact: its format, and what of it was run.
        format: its format.
        largest_probability_difference: of any output of any image.
        top_1_agreement: part of the images whose largest output is the model's.
        top_1: accuracy on the images.
        accuracy_drop: how much lower that is than the model's.
        largest_logit_difference: in parts of the spread of the model's logits over the images.
        correlation: of the logits with the model's, over the images.
        limit: of the probability difference; None where the answers are what counts.
        requirement: all that was asked, as flags.
        passed: whether it was kept.
        first_divergence: of an artifact that did not pass, the first layer that differs.
        cause: what explains it, where that was found.
    """

    artifact: str
    format: str
    largest_probability_difference: float
    top_1_agreement: float
    top_1: float
    accuracy_drop: float
    largest_logit_difference: float
    correlation: float
    limit: float | None
    requirement: str
    passed: bool
    first_divergence: str = ""
    cause: str = ""


def require_parity(rows: Sequence[ParityRow]) -> None:
    """Stops an export that disagrees.

    Raises:
        UserError: it names the artifacts, by how much they are off, where that begins, and why.
    """
    if failed := [_failure(row) for row in rows if not row.passed]:
        raise UserError(
            f"the export disagrees with the model and is not written: {'; '.join(failed)}"
        )


def show_parity(rows: Sequence[ParityRow]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("artifact", "largest difference", "limit", "same top-1", "top-1", "drop", ""):
        is_text = name in ("artifact", "")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.artifact),
            f"{row.largest_probability_difference:.1e}",
            "-" if row.limit is None else f"{row.limit:.0e}",
            f"{row.top_1_agreement:.1%}",
            f"{row.top_1:.1%}",
            f"{100 * row.accuracy_drop:+.1f}",
            Text("agrees" if row.passed else "DISAGREES", "green" if row.passed else "bold red"),
        )
    console.print(table)


def _failure(row: ParityRow) -> str:
    words = (
        f"{row.artifact} is off by {row.largest_probability_difference:.2g} and agrees on"
        f" {row.top_1_agreement:.1%} of the images, its logits by"
        f" {row.largest_logit_difference:.2g} of their spread, at a correlation of"
        f" {row.correlation:.3g} ({row.requirement})"
    )
    if row.accuracy_drop > 0.0:
        words += f", its accuracy on them is {100 * row.accuracy_drop:.1f} points lower"
    if row.first_divergence:
        words += f"; first diverging layer: {row.first_divergence}"
    if row.cause:
        words += f"; cause: {row.cause}"
    return words
