"""How much room a build needs, and whether there is that much."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

from common.errors import UserError
from common.files import is_remote
from preprocessing.plan import Plan

# An Example around its image, and its row in the row file and in the table.
_BYTES_PER_RECORD = 600 + 2 * 150


def bytes_needed(plan: Plan, todo: Sequence[int]) -> int:
    """Bytes of the shards `todo` and their rows, if all images are stored as they are."""
    num_images = sum(plan.num_images[index] for index in todo)
    return sum(plan.num_bytes[index] for index in todo) + num_images * _BYTES_PER_RECORD


def require_disk_space(data_dir: str, plan: Plan, todo: Sequence[int]) -> None:
    """Says how much is going to be written, and checks that it fits.

    Images that are made smaller need less, by how much is not known before; then it is only said.

    Raises:
        UserError: there is too little room.
    """
    need = bytes_needed(plan, todo)
    if is_remote(data_dir):
        logging.info(f"{len(todo)} shards to write, about {_gib(need)}")
        return
    free = shutil.disk_usage(data_dir).free
    smaller = plan.flags["shorter_side"] > 0
    most = "at most" if smaller else "about"
    logging.info(f"{len(todo)} shards to write, {most} {_gib(need)}; {_gib(free)} are free")
    if need > free and not smaller:
        raise UserError(
            f"{data_dir} has {_gib(free)} free, but the shards need {_gib(need)}: free some space,"
            " or use another --output_dir"
        )


def _gib(num_bytes: int) -> str:
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / 2**30:.1f} GiB"
