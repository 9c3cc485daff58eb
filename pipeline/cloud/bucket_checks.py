"""What can be known to be wrong with a job by looking at its bucket."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import TYPE_CHECKING

from common import buckets, files
from common.bucket_client import client, errors_of
from common.errors import UserError, first_line
from pipeline.cloud.checks import Check, Outcome, right, wrong
from training.config import DataFlags

if TYPE_CHECKING:
    from preprocessing.manifest import Manifest

_REGION = re.compile(r"[a-z]+-[a-z]+\d+")  # others are continents, or pairs of regions
_MOUNTED = "/gcs/"
_SECONDS = 10.0  # for one answer: a person waits for it


def as_object(path: str) -> str:
    """A path in a bucket as gs://, where a job may see it as a file below /gcs/."""
    return f"gs://{path.removeprefix(_MOUNTED)}" if path.startswith(_MOUNTED) else path


def check_bucket(path: str, region: str) -> Check:
    """Whether the bucket of a path lies in the region where the job runs.

    From elsewhere every epoch is read through a line that is paid for by the byte.
    """
    name, _ = buckets.split(path)
    try:
        with errors_of(path):
            bucket = client().get_bucket(name, timeout=_SECONDS, retry=None)
    except FileNotFoundError:
        return wrong(f"gs://{name} does not exist")
    except PermissionError:
        return Check(
            Outcome.UNCHECKED,
            f"gs://{name}: where it lies is not told without storage.buckets.get",
        )
    except UserError as error:
        return Check(Outcome.UNCHECKED, f"{error}")
    location = (bucket.location or "").lower()
    if location == region:
        return right(f"gs://{name} lies in {region}, where the job runs")
    if _REGION.fullmatch(location):
        return wrong(
            f"gs://{name} lies in {location} and the job runs in {region}: every epoch is read"
            " through a line that is paid for by the byte; use a bucket there, or that region"
        )
    return Check(
        Outcome.DOUBTFUL,
        f"gs://{name} is spread over {location}: reading it from {region} may be paid for by the"
        " byte, which in a bucket of that region is free",
    )


def check_data(data: DataFlags) -> tuple[list[Check], dict[str, Manifest]]:
    """Whether the splits that training reads are there; and the manifests that are.

    What others made, TFDS' and classic ImageNet shards, has no manifest: a look at names must do.
    """
    if data.dataset_name == "synthetic":
        return [right("images are made up: no data are needed")], {}
    data = dataclasses.replace(data, data_dir=as_object(data.data_dir))
    checks, manifests = [], {}
    splits = {name.partition("[")[0] for name in (data.train_split, data.eval_split) if name}
    for split in sorted(splits):
        try:
            check, manifest = _check_split(data, split)
        except (UserError, OSError) as error:
            check, manifest = wrong(first_line(error)), None
        checks.append(check)
        if manifest:
            manifests[split] = manifest
    return checks, manifests


def _check_split(data: DataFlags, split: str) -> tuple[Check, Manifest | None]:
    from preprocessing import layout
    from preprocessing.manifest import load_manifest

    made_by_us = not data.dataset_name and files.exists(
        layout.split_path(data.data_dir, split, layout.MANIFEST)
    )
    if made_by_us:
        manifest = load_manifest(data.data_dir, split)
        return (
            right(
                f"{data.data_dir} has {manifest.num_examples} examples of"
                f" {len(manifest.classes)} classes in {split!r}"
            ),
            manifest,
        )
    place = files.join(data.data_dir, data.dataset_name) if data.dataset_name else data.data_dir
    found = ()
    with contextlib.suppress(FileNotFoundError):
        found = [name for name, _ in files.list_tree(place) if _is_shard_of(name, split)]
    if not found:
        return wrong(f"{place} has no split {split!r}: --stage=preprocess makes it"), None
    return right(f"{place} has {len(found)} shards of {split!r}, made by others"), None


def _is_shard_of(name: str, split: str) -> bool:
    """`train-00000-of-01024`, or TFDS' `imagenette-train.tfrecord-00000-of-00016`."""
    file_name = name.rpartition("/")[2]
    return "-of-" in file_name and (
        file_name.startswith(f"{split}-") or f"-{split}.tfrecord-" in file_name
    )


def check_input(path: str, made_by: str) -> Check:
    """Whether what a stage reads is there."""
    path = as_object(path)
    try:
        there = files.exists(path)
    except (UserError, OSError) as error:
        return wrong(first_line(error))
    if there:
        return right(f"{path} is there")
    return wrong(f"{path} is not there: {made_by} makes it")
