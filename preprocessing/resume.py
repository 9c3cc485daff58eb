"""What an earlier build of a split has left, and what of it still holds."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator

from common.errors import UserError
from common.files import make_directory, sha256_of_file
from preprocessing import layout
from preprocessing.account import require_few_rejected
from preprocessing.manifest import load_manifest
from preprocessing.plan import Plan, difference, load_plan, save_plan
from preprocessing.shard_writer import is_whole


@contextlib.contextmanager
def locked(data_dir: str, split: str) -> Iterator[None]:
    """Keeps a second build of the same split out; the system frees the lock of a killed one.

    Raises:
        UserError: another build holds it.
    """
    make_directory(layout.split_path(data_dir, split, layout.ROWS))
    folder = os.open(layout.split_path(data_dir, split), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(
            f"another build of split {split!r} in {data_dir} is running: wait for its end, or use"
            " another --output_dir"
        ) from None
    finally:
        os.close(folder)


def settle_plan(data_dir: str, plan: Plan, body: bytes) -> None:
    """Saves the plan, or checks that it is the one that is there.

    Raises:
        UserError: the directory holds a build from other flags or images, or shards of no build.
    """
    cure = "use another --output_dir, or delete this one"
    old = load_plan(data_dir, plan.split)
    old_body = _read_if_there(layout.split_path(data_dir, plan.split, layout.PLAN_BODY))
    if old is None:
        if foreign := layout.find_shards(data_dir, plan.split):
            raise UserError(
                f"{data_dir} holds {foreign[0]}, which belongs to no build of split"
                f" {plan.split!r} there; {cure}"
            )
    elif reason := difference(old, old_body, plan, body):
        raise UserError(f"{data_dir} holds another build of split {plan.split!r}: {reason}; {cure}")
    if old != plan or old_body != body:
        save_plan(data_dir, plan, body)


def is_finished(data_dir: str, plan: Plan, max_rejected_fraction: float) -> bool:
    """Whether the split is there in full, by the sizes of its shards: quick for any amount of data.

    Raises:
        UserError: it is, but more images were rejected than are now allowed.
    """
    if not os.path.exists(layout.split_path(data_dir, plan.split, layout.MANIFEST)):
        return False
    try:
        manifest = load_manifest(data_dir, plan.split)
    except UserError as error:
        logging.warning(f"{error}: making it anew")
        return False
    for shard in manifest.shards:
        path = os.path.join(data_dir, shard.name)
        if not os.path.isfile(path) or os.path.getsize(path) != shard.num_bytes:
            logging.warning(f"{path} is missing or has another size than the manifest says")
            return False
    path = layout.split_path(data_dir, plan.split, layout.RECORDS)
    if not os.path.isfile(path) or sha256_of_file(path) != manifest.records_sha256:
        logging.warning(f"{path} is missing or not what the manifest says")
        return False
    require_few_rejected(data_dir, manifest, max_rejected_fraction)
    return True


def shards_to_do(data_dir: str, plan: Plan) -> list[int]:
    """Numbers of the shards that are not there, or not what their row files say, by SHA-256.

    The manifest goes first: until all shards are whole again there is no finished split.
    """
    with contextlib.suppress(FileNotFoundError):
        os.remove(layout.split_path(data_dir, plan.split, layout.MANIFEST))
    todo = [index for index in range(plan.num_shards) if not is_whole(data_dir, plan, index)]
    if len(todo) < plan.num_shards:
        logging.info(
            f"{plan.num_shards - len(todo)} of {plan.num_shards} shards are finished already"
        )
    return todo


def _read_if_there(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
