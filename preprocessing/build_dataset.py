"""`python -m preprocessing.build_dataset`: from class folders to shards and a manifest.

The build goes in four steps: list the images, plan which shard each belongs to, write the shards
(with Beam), account for every image. A killed build goes on where it was when it is run again; a
finished one is left as it is.
"""

from __future__ import annotations

import dataclasses
import logging
import time

from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import require_writable, sha256_of_bytes
from preprocessing import images, layout
from preprocessing.account import account
from preprocessing.class_list import ClassList, choose_class_list
from preprocessing.plan import Plan, PlannedImage, deal, in_holdout, write_body
from preprocessing.resume import is_finished, locked, settle_plan, shards_to_do
from preprocessing.sources import list_class_folders

TRAIN, VALIDATION = "train", "validation"


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Flags of the command."""

    input_dir: str = flag(help="directory with one folder of images for each class")
    output_dir: str = flag(help="where the shards go; several splits may share it")
    split: str = flag(TRAIN, help="name of the split: train, validation, test ...")
    num_shards: int = flag(8, help="how many files of records to write")
    num_workers: int = flag(1, help="processes that write shards")
    classes: str | None = flag(
        None,
        help="file with one class name per line, in the order of the class indices; without it,"
        " ImageNet's order if all folders are its synsets, else the sorted folder names",
    )
    seed: int = flag(0, help="of the permutation that deals images to shards")
    holdout_fraction: float = flag(
        0.0,
        help="for a single tree: --split=validation takes this fraction of its images, chosen by"
        " a hash of their names, and --split=train the rest",
    )
    max_rejected_fraction: float = flag(
        0.05, help="fail if a larger fraction of the images cannot be used"
    )
    max_pixels: int = flag(images.MAX_PIXELS, help="reject images with more pixels than this")

    def __post_init__(self):
        layout.require_split_name(self.split)
        for name in ("num_shards", "num_workers", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}={getattr(self, name)}: it must be at least 1")
        if not 0 <= self.max_rejected_fraction <= 1:
            raise UsageError(
                f"--max_rejected_fraction={self.max_rejected_fraction}: it must be from 0 to 1"
            )
        if not 0 <= self.holdout_fraction < 1:
            raise UsageError(
                f"--holdout_fraction={self.holdout_fraction}: it must be from 0 to below 1"
            )
        if self.holdout_fraction and self.split not in (TRAIN, VALIDATION):
            raise UsageError(
                f"--split={self.split}: with --holdout_fraction it must be {TRAIN} or {VALIDATION}"
            )


def build_dataset(config: BuildConfig) -> None:
    """Builds one split of a data set: TFRecord shards and a manifest, from class folders."""
    start = time.monotonic()
    plan, body = make_plan(config)
    require_writable(config.output_dir, "output_dir")
    with locked(config.output_dir, config.split):
        layout.remove_temporaries(config.output_dir, config.split)
        settle_plan(config.output_dir, plan, body)
        if is_finished(config.output_dir, plan, config.max_rejected_fraction):
            logging.info(
                f"split {config.split!r} in {config.output_dir} is finished: nothing to do"
            )
            return
        todo = shards_to_do(config.output_dir, plan)
        if todo:
            _write_shards(config, plan, todo)
        manifest = account(config.output_dir, plan, config.max_rejected_fraction)
    seconds = time.monotonic() - start
    num_written = sum(plan.num_images[index] for index in todo)
    logging.info(
        f"{config.split}: {manifest.num_examples} examples of {len(manifest.classes)} classes in"
        f" {plan.num_shards} shards in {config.output_dir}, {seconds:.1f} s"
        f" ({num_written / seconds:.0f} img/s)"
    )


def make_plan(config: BuildConfig) -> tuple[Plan, bytes]:
    """Lists the images and deals them to shards; returns the plan's header and body.

    Raises:
        UserError: there is nothing to build from, or the class list does not fit.
        UsageError: there are fewer images than shards.
    """
    listing = list_class_folders(config.input_dir)
    classes = choose_class_list(listing.folders, config.classes)
    _say_what_was_found(config, len(listing.images), classes, listing.ignored_folders)
    indices = {name: index for index, name in enumerate(classes.names)}
    planned = [
        PlannedImage(key, indices[folder], size)
        for key, folder, size in listing.images
        if not config.holdout_fraction
        or in_holdout(key, config.holdout_fraction) == (config.split == VALIDATION)
    ]
    if not planned:
        raise UserError(
            f"--holdout_fraction={config.holdout_fraction} leaves no image of"
            f" {len(listing.images)} to --split={config.split}"
        )
    shards = deal(planned, config.num_shards, config.seed)
    body, offsets = write_body(shards)
    names = ("split", "num_shards", "seed", "holdout_fraction", "max_pixels")
    plan = Plan(
        split=config.split,
        flags={name: getattr(config, name) for name in names},
        classes=classes.names,
        class_list_source=classes.source,
        class_list_sha256=classes.file_sha256,
        versions=images.encoder_versions(),
        num_images=tuple(map(len, shards)),
        offsets=tuple(offsets),
        body_sha256=sha256_of_bytes(body),
    )
    return plan, body


def _write_shards(config: BuildConfig, plan: Plan, todo: list[int]) -> None:
    # Beam takes seconds to import, which a finished build need not wait for, and warns of parts
    # that this project does not use.
    logging.disable(logging.WARNING)
    try:
        from preprocessing.beam_job import write_shards
    finally:
        logging.disable(logging.NOTSET)
    write_shards(config.input_dir, config.output_dir, plan, todo, config.num_workers)


def _say_what_was_found(
    config: BuildConfig, num_images: int, classes: ClassList, ignored: tuple[str, ...]
) -> None:
    origin = {
        "file": f"as in {config.classes}",
        "imagenet": "ImageNet's own order",
        "folders": "the sorted folder names",
    }[classes.source]
    logging.info(
        f"{config.input_dir}: {num_images} images, {len(classes.names)} classes ({origin})"
    )
    if ignored:
        logging.warning(
            f"{len(ignored)} folders inside class folders are passed over, {ignored[0]!r} first"
        )


if __name__ == "__main__":
    run(build_dataset, BuildConfig)
