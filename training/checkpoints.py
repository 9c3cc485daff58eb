"""Checkpoints: written whole, keyed by weight names, a damaged one passed over by name.

Keras' own checkpoint keys are positions of layers, which one inserted layer shifts. Here the keys
are `model/NAME`, `averages/NAME`, `optimizer/SLOT/NAME` and `progress/NAME`, where NAME is a key of
`training.models.named_variables`. They may lie in a bucket, which TensorFlow reads and writes by a
client of its own.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from common import files
from common.errors import Unreachable, UserError, first_line

DIRECTORY = "checkpoints"  # of a run, below its --model_dir

_PREFIX = "ckpt"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

# What TensorFlow says of a bucket that does not answer, after many attempts, or refuses.
_UNREACHABLE = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)
_REFUSED = (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError)


@contextlib.contextmanager
def reachable(path: str) -> Iterator[None]:
    """Says that a bucket is out of reach, which is no damage to what lies in it.

    Raises:
        Unreachable: it does not answer.
        UserError: it refuses.
    """
    try:
        yield
    except (*_UNREACHABLE, *_REFUSED) as error:
        if not files.is_remote(path):
            raise
        kind = UserError if isinstance(error, _REFUSED) else Unreachable
        raise kind(
            f"{path} is out of reach: {first_line(error)}; the same command goes on from the last"
            " checkpoint"
        ) from None


class CheckpointStore:
    """The checkpoints of one run in one directory.

    Args:
        directory: where they are.
        items: what a checkpoint holds: dictionaries of variables by name, nested at will.
        keep: how many of the newest are kept.
        writes: whether this process writes them; of several workers the chief does.
    """

    def __init__(
        self, directory: str, items: Mapping[str, Any], keep: int = 3, writes: bool = True
    ):
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(**items)
        self._manager = _manager(self._checkpoint, directory, keep) if writes else None

    def save(self, step: int) -> str | None:
        """Writes a checkpoint, whole or not at all; its path prefix, if this process writes."""
        with reachable(self._directory):
            return self._manager.save(checkpoint_number=step) if self._manager else None

    def restore_newest(self) -> str | None:
        """Restores the newest whole checkpoint exactly; None when there is none at all.

        Raises:
            UserError: there are checkpoints, but none that can be restored.
        """
        prefixes: list[str] = []
        while (there := list_checkpoints(self._directory)) != prefixes:
            prefixes = there  # of a run that goes on, others take their place meanwhile
            if (restored := self._restore_first(reversed(prefixes))) is not None:
                return restored
        if prefixes:
            raise UserError(
                f"none of the {len(prefixes)} checkpoints in {self._directory} can be restored"
                " under these settings: give another --model_dir, or remove the directory"
            )
        return None

    def _restore_first(self, prefixes: Iterable[str]) -> str | None:
        """Restores the first that can be, and returns it."""
        for prefix in prefixes:
            try:
                self._restore(prefix)
                return prefix
            except (UserError, PermissionError):
                raise  # the bucket is out of reach; to go on from an older one would lose work
            except Exception as error:
                # Whatever a damaged file raises (IndexError, DataLossError, OpError, ...), the
                # cure is the same: say it, and take the one before.
                logging.warning(
                    "checkpoint %s cannot be restored and is passed over: %s",
                    prefix,
                    first_line(error),
                )
        return None

    def _restore(self, prefix: str) -> None:
        try:
            self._checkpoint.restore(prefix).assert_consumed()
        except Exception:
            if not files.is_remote(prefix):
                raise
            # TensorFlow's client does not tell a bucket out of reach from a damaged file.
            with _checked_copy(prefix) as local:
                self._checkpoint.restore(local).assert_consumed()


@contextlib.contextmanager
def _checked_copy(prefix: str) -> Iterator[str]:
    """Yields the prefix of a local copy of a checkpoint, whose files are those of the bucket.

    Raises:
        UserError: the bucket is out of reach.
    """
    directory, name = files.parent(prefix), os.path.basename(prefix)
    with tempfile.TemporaryDirectory(prefix="mobilenet-checkpoint-") as copy:
        for found in files.find(directory, f"{glob.escape(name)}.*"):
            files.write_bytes(
                files.join(copy, found), files.read_bytes(files.join(directory, found))
            )
        yield files.join(copy, name)


def _manager(
    checkpoint: tf.train.Checkpoint, directory: str, keep: int
) -> tf.train.CheckpointManager:
    """Who writes into `directory`, which is rid of what was left there unfinished or damaged."""
    remove_unfinished(directory)
    _remove_unreadable_state(directory)
    with reachable(directory):
        return tf.train.CheckpointManager(
            checkpoint, directory, max_to_keep=keep, checkpoint_name=_PREFIX
        )


def list_checkpoints(directory: str) -> list[str]:
    """Path prefixes of the checkpoints in `directory`, oldest first, by the files there are."""
    names = files.find(directory, "*.index")
    return sorted((files.join(directory, n.removesuffix(".index")) for n in names), key=_step_of)


def remove_unfinished(directory: str) -> None:
    """Removes what a killed process left of a checkpoint that it was writing."""
    for name in files.find(directory, f"{_PREFIX}-*_temp"):
        files.remove_tree(files.join(directory, name))


def _remove_unreadable_state(directory: str) -> None:
    """Removes TensorFlow's list of checkpoints if it is damaged; the files themselves count."""
    try:
        tf.train.get_checkpoint_state(directory)
    except ValueError:  # it is empty, or no text
        path = files.join(directory, "checkpoint")
        logging.warning("%s is damaged and is written anew", path)
        tf.io.gfile.remove(path)  # of a bucket TensorFlow remembers for a while what is there


def write_weights(
    directory: str,
    raw: Mapping[str, np.ndarray],
    averages: Mapping[str, np.ndarray] | None = None,
    step: int = 0,
) -> str:
    """Writes weights alone as a TF2 checkpoint, CheckpointManager's layout; returns its prefix."""
    items = {"model": raw, "progress": {"step": np.int64(step)}}
    if averages:
        items["averages"] = averages
    variables = {
        group: {name: tf.Variable(value) for name, value in values.items()}
        for group, values in items.items()
    }
    manager = _manager(tf.train.Checkpoint(**variables), directory, keep=1)
    with reachable(directory):
        return manager.save(checkpoint_number=step)


def read_weights(
    prefix: str,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Weights by name, moving averages by name (of those that have one), and the step.

    Raises:
        UserError: the checkpoint cannot be read, or is not one of ours.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        groups: dict[str, dict[str, np.ndarray]] = {"model": {}, "averages": {}, "progress": {}}
        for key, kind in reader.get_variable_to_dtype_map().items():
            group, _, name = key.partition("/")
            # Random generators keep their state in integers; it is no weight.
            if (
                group in groups
                and key.endswith(_VALUE)
                and (kind == tf.float32 or group == "progress")
            ):
                groups[group][_unescaped(name[: -len(_VALUE)])] = reader.get_tensor(key)
    except Exception as error:  # TensorFlow raises many kinds for a damaged file
        raise UserError(f"checkpoint {prefix} cannot be read: {first_line(error)}") from None
    if not groups["model"]:
        raise UserError(
            f"{prefix} holds no weights under 'model/': it was not written by this project"
        )
    return groups["model"], groups["averages"], int(groups["progress"].get("step", 0))


def _unescaped(key: str) -> str:
    """The name behind a key: TensorFlow doubles the dots."""
    return key.replace("..", ".")


def _step_of(prefix: str) -> int:
    match = re.search(r"-(\d+)$", prefix)
    return int(match.group(1)) if match else -1
