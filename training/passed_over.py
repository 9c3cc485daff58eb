"""Damaged records that a run passes over: found once, noted, and the same on every resumption.

The place of such a record in the order is taken by a neighbour, so that positions, and with them
all other batches, stay what they are.
"""

from __future__ import annotations

import dataclasses
import logging

from common import files
from common.errors import UserError, first_line
from training.input_pipeline import TrainingInput
from training.order import epoch_order
from training.shard_errors import is_over_data, named_shard_errors
from training.shards import Shards

FILE_NAME = "passed_over.json"

_PREFETCHED_BATCHES = 16  # more are not made ahead of the step


class PassedOver:
    """The list of such records of one run.

    Args:
        model_dir: directory of the run.
        shards: what is read.
        most: records that may be passed over.
    """

    def __init__(self, model_dir: str, shards: Shards, most: int):
        self._path = files.join(model_dir, FILE_NAME)
        self._shards, self._most = shards, most
        self._reasons: dict[int, str] = {}
        if files.exists(self._path):
            self._reasons = {row["example"]: row["reason"] for row in files.read_json(self._path)}

    def without(self, options: TrainingInput) -> TrainingInput:
        """`options` that leave the records out."""
        return dataclasses.replace(options, passed_over=frozenset(self._reasons))

    def add_culprit(self, error: Exception, options: TrainingInput, position: int) -> None:
        """Finds the damaged record that made reading fail from `position` on, and notes it.

        Raises:
            UserError: it names the record, if no more may be passed over; or a shard that cannot
                be read, which is no damage to its records.
            Exception: `error`, if no record is at fault.
        """
        found = self._find(options, position) if is_over_data(error) else None
        if found is None:
            with named_shard_errors(None):
                raise error
        example, reason = found
        if len(self._reasons) >= self._most:
            raise UserError(f"{reason}: {self._remedy}") from None
        logging.warning("passed over: %s (%s)", reason, first_line(error)[:80])
        self._reasons[example] = reason
        rows = [{"example": e, "reason": r} for e, r in sorted(self._reasons.items())]
        files.write_json(self._path, rows)

    def _find(self, options: TrainingInput, position: int) -> tuple[int, str] | None:
        """The first damaged record from `position` on: number of the example, and what is wrong."""
        shards = self._shards
        ahead = options.num_streams * (options.shuffle_window + 1)
        ahead += _PREFETCHED_BATCHES * options.batch_size
        for number in range(position, position + ahead):
            epoch, place = divmod(number, shards.num_examples)
            if number == position or place == 0:
                order = epoch_order(
                    shards.sizes, options.num_streams, options.shuffle_window, options.seed, epoch
                )
            example = shards.first_example + int(order[place])
            if example in self._reasons:
                continue
            shard = max(s for s, first in enumerate(shards.first_examples[:-1]) if first <= example)
            if reason := shards.check(shard, example - shards.first_examples[shard]):
                return example, reason
        return None

    @property
    def _remedy(self) -> str:
        if self._most:
            return f"--skip_corrupt_records={self._most} are passed over already"
        skip = "--skip_corrupt_records=N passes over up to N"
        if self._shards.manifest:
            return f"`python -m preprocessing.verify` finds all such records; {skip}"
        return skip
