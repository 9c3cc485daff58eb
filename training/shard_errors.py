"""TensorFlow's errors over damaged shards, said again in words that name the record."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

import tensorflow as tf

from common.errors import Unreachable, UserError
from training.shards import Shards

_RAISED_IN_PYTHON = re.compile(r"\b(UserError|DamagedRecordError|Unreachable): (.+)")

# What TensorFlow raises over a record that is damaged, or a file that is gone.
_OVER_FILES = (tf.errors.DataLossError, tf.errors.NotFoundError)

# An InvalidArgumentError may be over anything; it is over a record if it speaks of its content.
_OVER_CONTENT = re.compile(r"jpeg|png|image|label is not|crop window", re.IGNORECASE)

# Records that are read at once where a culprit is looked for.
_WINDOW = 64


@contextlib.contextmanager
def named_shard_errors(shards: Shards | None) -> Iterator[None]:
    """Makes a `UserError` of what TensorFlow raises over a shard that is damaged or gone.

    Args:
        shards: what is read in the block by ops that do not say over which record they stumbled:
            all of it is gone through for the first one that is of no use; None if nothing is.

    Raises:
        UserError: a record is of no use, or a shard cannot be read; the message names it.
        Unreachable: a bucket does not answer.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # An error that Python code raised inside a tf.data pipeline comes out as text.
        if found := _RAISED_IN_PYTHON.search(str(error)):
            kind, text = found.groups()
            raise (Unreachable if kind == Unreachable.__name__ else UserError)(text) from None
        if shards is None or not is_over_data(error):
            raise
        windows = shards.windows(_WINDOW).tolist()
        for window in windows:
            shards.read(*window)
        if isinstance(error, tf.errors.InvalidArgumentError):
            places = ((shard, first + i) for shard, first, count in windows for i in range(count))
            for reason in damaged_records(shards, places):
                raise UserError(reason) from None
        raise


def is_over_data(error: Exception) -> bool:
    """Whether TensorFlow may have raised it over a damaged record, or over a shard."""
    text = str(error)
    if _RAISED_IN_PYTHON.search(text) or isinstance(error, _OVER_FILES):
        return True
    return isinstance(error, tf.errors.InvalidArgumentError) and bool(_OVER_CONTENT.search(text))


def damaged_records(shards: Shards, places: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Why those of some records (shard, record) are of no use that are of none."""
    for shard, record in places:
        if reason := shards.check(shard, record):
            yield reason
