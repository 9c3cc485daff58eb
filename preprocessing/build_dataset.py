"""`python -m preprocessing.build_dataset`: from photos to shards and a manifest.

The build goes in four steps: list the images, plan which shard each belongs to, write the shards
(with Beam), account for every image. A killed build goes on where it was when it is run again; a
finished one is left as it is.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time

from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import is_remote, join, require_writable, sha256_of_bytes
from preprocessing import images, layout
from preprocessing.account import account
from preprocessing.bounding_boxes import read_bounding_boxes
from preprocessing.class_list import ClassList, choose_class_list
from preprocessing.disk_space import require_disk_space
from preprocessing.plan import Plan, PlannedImage, deal, in_holdout, write_body
from preprocessing.resume import is_finished, locked, settle_plan, shards_to_do
from preprocessing.runners import RUNNERS, RunnerConfig
from preprocessing.sources import Listing, list_source

TRAIN, VALIDATION = "train", "validation"
BEAM_OPTIONS = "options of Beam for the runner, such as --project=NAME"


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Flags of the command."""

    source: str = flag(
        help="a directory of class folders, of images, or of class tars; a tar of one of these"
        " (ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar), read in place; or tfds:NAME, a TFDS"
        " data set. Local or gs://"
    )
    output_dir: str = flag(help="where the shards go; several splits may share it. Local or gs://")
    split: str = flag(TRAIN, help="name of the split: train, validation, test ...")
    num_shards: int = flag(8, help="how many files of records to write")
    labels: str | None = flag(
        None,
        help="for images without class folders: a file with the class of each, one per line in the"
        " order of the sorted file names, or lines of file name and class; by default ImageNet's"
        " own for its 50,000 validation images",
    )
    classes: str | None = flag(
        None,
        help="file with one class name per line, in the order of the class indices; without it,"
        " ImageNet's order if all classes are its synsets, else the sorted class names",
    )
    class_text: str | None = flag(
        None,
        help="file with a class name, a tab and what it is called in plain words per line;"
        " ImageNet's are known",
    )
    bounding_boxes: str | None = flag(
        None,
        help="CSV file of lines NAME,XMIN,YMIN,XMAX,YMAX, in fractions of the image; the name"
        " with or without the class before it",
    )
    tfds_dir: str | None = flag(None, help="where TFDS keeps its files; its own place by default")
    seed: int = flag(0, help="of the permutation that deals images to shards")
    holdout_fraction: float = flag(
        0.0,
        help="for a single tree: --split=validation takes this fraction of its images, chosen by"
        " a hash of their names, and --split=train the rest; of tfds:NAME the tree is its train"
        " split",
    )
    validate: str = flag(
        images.HEADER,
        help="how closely each image is looked at: its header and its end, or its compressed data"
        " too, which takes about five times as long",
        choices=(images.HEADER, images.DECODE),
    )
    shorter_side: int = flag(
        0,
        help="make images smaller whose shorter side has more pixels than this, for faster"
        " training; 0 stores all as they are",
    )
    jpeg_quality: int = flag(95, help="of the images that --shorter_side makes smaller")
    max_rejected_fraction: float = flag(
        0.01, help="fail if a larger fraction of the images cannot be used"
    )
    max_pixels: int = flag(images.MAX_PIXELS, help="reject images with more pixels than this")
    runner: str = flag(
        RUNNERS[0],
        help=f"what runs the Beam job; {RUNNERS[0]} is this machine. Options of other runners go"
        " behind a '--'",
        choices=RUNNERS,
    )
    num_workers: int = flag(1, help=f"processes that write shards, with {RUNNERS[0]}")
    read_threads: int | None = flag(
        None, help="threads in each worker that read ahead; by default 0 for files, 8 for gs://"
    )

    def __post_init__(self):
        layout.require_split_name(self.split)
        for name, least in (
            ("num_shards", 1),
            ("num_workers", 1),
            ("max_pixels", 1),
            ("shorter_side", 0),
            ("read_threads", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name}={value}: it must be at least {least}")
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f"--jpeg_quality={self.jpeg_quality}: it must be from 1 to 100")
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


def build_dataset(config: BuildConfig, beam_flags: tuple[str, ...] = ()) -> None:
    """Builds one split of a data set: TFRecord shards and a manifest, from photos."""
    start = time.monotonic()
    runner = RunnerConfig(config.runner, config.num_workers, beam_flags)
    runner.check(config.output_dir, config.source)
    require_apart(config)
    root, plan, body = make_plan(config)
    require_writable(config.output_dir, "output_dir")
    with locked(config.output_dir, config.split):
        layout.remove_temporaries(config.output_dir, config.split)
        plan = settle_plan(config.output_dir, plan, body)
        if is_finished(config.output_dir, plan, config.max_rejected_fraction):
            logging.info(
                f"split {config.split!r} in {config.output_dir} is finished: nothing to do"
            )
            return
        todo = shards_to_do(config.output_dir, plan)
        if todo:
            require_disk_space(config.output_dir, plan, todo)
            _write_shards(config, root, plan, todo, runner)
        manifest = account(config.output_dir, plan, config.max_rejected_fraction)
    seconds = time.monotonic() - start
    num_written = sum(plan.num_images[index] for index in todo)
    logging.info(
        f"{config.split}: {manifest.num_examples} examples of {len(manifest.classes)} classes in"
        f" {plan.num_shards} shards in {config.output_dir}, {seconds:.1f} s"
        f" ({num_written / seconds:.0f} img/s)"
    )


def make_plan(config: BuildConfig) -> tuple[str, Plan, bytes]:
    """Lists the images and deals them to shards.

    Returns:
        What the paths of the plan are relative to, the plan's header, and its body.

    Raises:
        UserError: there is nothing to build from, or the class list does not fit.
        UsageError: there are fewer images than shards.
    """
    # What is held out is held out of one tree; a TFDS data set's is its training split.
    split = TRAIN if config.holdout_fraction else config.split
    listing = list_source(config.source, split, config.labels, config.tfds_dir)
    classes = choose_class_list(listing.classes, config.classes, config.class_text)
    _say_what_was_found(config, listing, classes)
    shards = deal(_choose_images(config, listing, classes), config.num_shards, config.seed)
    body, offsets = write_body(shards)
    names = (
        "split",
        "num_shards",
        "seed",
        "holdout_fraction",
        "validate",
        "shorter_side",
        "jpeg_quality",
        "max_pixels",
    )
    flags = {name: getattr(config, name) for name in names}
    plan = Plan(
        split=config.split,
        flags=flags,
        source={"kind": listing.kind, "name": os.path.basename(listing.root.rstrip("/"))},
        classes=classes.names,
        class_texts=classes.texts,
        class_list_source=classes.source,
        class_list_sha256=classes.file_sha256,
        versions=images.encoder_versions(images.ImagePolicy.of_flags(flags)),
        num_images=tuple(map(len, shards)),
        num_bytes=tuple(sum(image.num_bytes for image in shard) for shard in shards),
        offsets=tuple(offsets),
        body_sha256=sha256_of_bytes(body),
    )
    return listing.root, plan, body


def require_apart(config: BuildConfig) -> None:
    """Checks that the build does not write among the photos that it reads."""
    source, output = (
        path if is_remote(path) else os.path.realpath(path)
        for path in (config.source, config.output_dir)
    )
    for outer, inner in ((source, output), (join(output, config.split), source)):
        if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
            raise UsageError(
                f"--output_dir={config.output_dir} would write split {config.split!r} among the"
                f" photos of --source={config.source}: use another directory"
            )


def _choose_images(config: BuildConfig, listing: Listing, classes: ClassList) -> list[PlannedImage]:
    """The images of the split, by class index, with their boxes; the listing is used up.

    Of a million images there would otherwise be two lists.
    """
    boxes = read_bounding_boxes(config.bounding_boxes) if config.bounding_boxes else {}
    indices = {name: index for index, name in enumerate(classes.names)}
    planned, owners = [], {}
    num_listed = len(listing.images)
    listing.images.reverse()
    while listing.images:
        key, class_name, num_bytes, path, offset = listing.images.pop()
        if not config.holdout_fraction or (
            in_holdout(key, config.holdout_fraction) == (config.split == VALIDATION)
        ):
            own = ()
            if boxes:
                name = key.rpartition("/")[2]
                own = tuple(boxes.get(key) or boxes.get(name, ()))
                if own and key not in boxes and owners.setdefault(name, key) != key:
                    raise UserError(
                        f"--bounding_boxes={config.bounding_boxes}: {name!r} may be {key!r} or"
                        f" {owners[name]!r}: write the class before the name"
                    )
            image = PlannedImage(key, indices[class_name], num_bytes, path, offset, own)
            planned.append(image)
    if not planned:
        raise UserError(
            f"--holdout_fraction={config.holdout_fraction} leaves no image of {num_listed} to"
            f" --split={config.split}"
        )
    if boxes and not any(image.boxes for image in planned):
        raise UserError(
            f"--bounding_boxes={config.bounding_boxes} names none of the images: it has"
            f" {next(iter(boxes))!r}, the source {planned[0].key.rpartition('/')[2]!r}"
        )
    return planned


def _write_shards(
    config: BuildConfig, root: str, plan: Plan, todo: list[int], runner: RunnerConfig
) -> None:
    # Beam takes seconds to import, which a finished build need not wait for.
    from preprocessing.runners.job import write_shards

    root, output_dir = (
        path if is_remote(path) else os.path.abspath(path) for path in (root, config.output_dir)
    )
    write_shards(root, output_dir, plan, todo, runner, config.read_threads)


def _say_what_was_found(config: BuildConfig, listing: Listing, classes: ClassList) -> None:
    origin = {
        "file": f"as in {config.classes}",
        "imagenet": "ImageNet's own order",
        "folders": "the source's own order",
    }[classes.source]
    logging.info(
        f"{config.source} ({listing.kind}): {len(listing.images)} images, {len(classes.names)}"
        f" classes ({origin})"
    )
    if listing.ignored:
        logging.warning(
            f"{len(listing.ignored)} names that are no images of a class are passed over,"
            f" {listing.ignored[0]!r} first"
        )


if __name__ == "__main__":
    run(build_dataset, BuildConfig, passthrough=BEAM_OPTIONS)
