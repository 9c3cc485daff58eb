"""`labels.txt`: the name of every output, one a line."""

from __future__ import annotations

from training.models import ModelRecord

BACKGROUND = "background"


def output_names(record: ModelRecord) -> list[str]:
    """The name of each output; '' for the classes of a model that knows no names."""
    names = record.classes or ("",) * record.labels.num_classes
    return [BACKGROUND] * record.labels.offset + list(names)


def label_lines(record: ModelRecord) -> list[str]:
    """The lines of `labels.txt`: line i names output i, whatever is in the names."""
    return [one_line(name) for name in output_names(record)]


def label_text(record: ModelRecord) -> str:
    return "".join(f"{line}\n" for line in label_lines(record))


def one_line(name: str) -> str:
    """`name` with everything that ends a line, or does not print, written as in Python."""
    return "".join(
        c if c == " " or c.isprintable() else c.encode("unicode_escape").decode() for c in name
    )
