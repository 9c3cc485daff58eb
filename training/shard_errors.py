"""TensorFlow's errors over damaged shards, said again in words that name the shard."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from common.errors import UserError
from training.shards import Shards

_RAISED_IN_PYTHON = re.compile(r"\bUserError: (.+)")


@contextlib.contextmanager
def named_shard_errors(shards: Shards | None) -> Iterator[None]:
    """Makes a `UserError` of what TensorFlow raises over a shard that is damaged or gone.

    Args:
        shards: what TensorFlow's own reader reads in the block, which does not say in which file
            it stumbled; None if it reads nothing.

    Raises:
        UserError: a shard cannot be read; the message names it.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # An error that Python code raised inside a tf.data pipeline comes out as text.
        if found := _RAISED_IN_PYTHON.search(str(error)):
            raise UserError(found.group(1)) from None
        if not isinstance(error, (tf.errors.DataLossError, tf.errors.NotFoundError)):
            raise
        for number, size in enumerate(shards.sizes if shards else ()):
            shards.read(number, 0, size)
        raise
