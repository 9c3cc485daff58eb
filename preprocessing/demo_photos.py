"""Draws the demo data set: photo-like pictures of ten things, in ImageNet's folder layout.

The whole pipeline can be tried on it without a download. It has what real data has: photos of every
size and quality, some of them grey, and a few files that are not what their names say. Ten other
things, --things=pretraining, are for the weights that the demo starts from.

    DIR/train/<synset>/<synset>_<number>.JPEG
    DIR/validation/<synset>/<synset>_val_<number>.JPEG
    DIR/class_names.txt      a line a class: synset, tab, name
    DIR/demo.json            settings and counts, written last

A photo depends on the seed, its split, its class and its number alone.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import multiprocessing
import os
import signal
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

import numpy as np
from PIL import Image

from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import (
    absolute,
    atomic_directory,
    exists,
    is_directory,
    is_replaceable,
    join,
    read_json,
    write_json,
    write_text,
)
from common.progress import Progress
from preprocessing.demo.drawing import THINGS, Thing
from preprocessing.demo.pretraining import PRETRAINING_THINGS
from preprocessing.demo.scene import draw_scene

SUMMARY = "demo.json"
SPLITS = ("train", "validation")
REPAIRABLE_KINDS = ("png", "cmyk")
REJECTED_KINDS = ("truncated", "text", "empty")
BAD_FILES_PER_KIND = {"train": 3, "validation": 1}
FILES_PER_TASK = 20

DEMO, PRETRAINING = "demo", "pretraining"
THING_SETS = {DEMO: THINGS, PRETRAINING: PRETRAINING_THINGS}

# Random numbers are made from a thing's place in this row: no two sets share a background.
_ALL_THINGS = (*THINGS, *PRETRAINING_THINGS)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What to draw and where."""

    output_dir: str = flag(help="directory that the data set is written to; it must not exist yet")
    train_per_class: int = flag(200, help="good training photos of each of the ten classes")
    validation_per_class: int = flag(50, help="good validation photos of each class")
    things: str = flag(DEMO, help="which ten things", choices=tuple(THING_SETS))
    seed: int = flag(0, help="another seed draws other photos")
    num_workers: int | None = flag(
        None, help="processes that draw; all processors if not given; makes no difference to photos"
    )

    def __post_init__(self):
        for name in ("train_per_class", "validation_per_class", "num_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name}={value} must be at least 1")
        if self.seed < 0:
            raise UsageError(f"--seed={self.seed} must not be negative")


@dataclasses.dataclass(frozen=True)
class DemoFile:
    """One file of the data set.

    Attributes:
        path: relative to the data set, with '/'.
        thing: what it shows.
        entropy: what its random numbers are made from, the seed apart.
        kind: "photo", or the way in which it is bad.
    """

    path: str
    thing: Thing
    entropy: tuple[int, ...]
    kind: str = "photo"


def write_demo_photos(
    output_dir: str,
    train_per_class: int = 200,
    validation_per_class: int = 50,
    seed: int = 0,
    num_workers: int | None = None,
    things: str = DEMO,
) -> dict:
    """Draws the data set into `output_dir`, unless it is there already.

    With more than one worker it starts processes, so a script that calls it needs the usual
    `if __name__ == "__main__"`.

    Returns:
        What `demo.json` says: `settings`, and `counts` by split: `files`, `examples` (files that
        hold a picture, repairable ones among them) and `rejected`.

    Raises:
        UsageError: a number is out of range.
        UserError: `output_dir` holds something else, or a worker was killed.
    """
    return _write(
        DemoConfig(output_dir, train_per_class, validation_per_class, things, seed, num_workers)
    )


def bad_files(split: str, things: str = DEMO) -> dict[str, list[str]]:
    """The files of a split that are no good JPEG, by kind, as paths relative to the data set.

    Kinds in `REPAIRABLE_KINDS` hold a picture of their class all the same; those in
    `REJECTED_KINDS` hold none.
    """
    by_kind: dict[str, list[str]] = {}
    for file in _plan_bad_files(split, THING_SETS[things]):
        by_kind.setdefault(file.kind, []).append(file.path)
    return by_kind


def draw_photos(config: DemoConfig) -> None:
    """Draws the demo data set: photo-like pictures of ten things, in ImageNet's folder layout."""
    _write(config)


def _write(config: DemoConfig) -> dict:
    directory = absolute(config.output_dir.rstrip("/"))
    things = THING_SETS[config.things]
    settings = {
        name: getattr(config, name)
        for name in ("train_per_class", "validation_per_class", "things", "seed")
    }
    finished = _finished(directory, settings)
    if finished:
        logging.info("%s holds these demo photos already", config.output_dir)
        return finished
    files = [
        file
        for split, per_class in zip(
            SPLITS, (config.train_per_class, config.validation_per_class), strict=True
        )
        for file in _plan_photos(split, per_class, things) + _plan_bad_files(split, things)
    ]
    summary = {"settings": settings, "counts": {split: _count(files, split) for split in SPLITS}}
    with atomic_directory(directory, last=SUMMARY) as temporary:
        for folder in sorted({os.path.dirname(file.path) for file in files}):
            os.makedirs(os.path.join(temporary, folder))
        _draw_all(files, temporary, config)
        names = "".join(f"{thing.synset}\t{thing.name}\n" for thing in things)
        write_text(os.path.join(temporary, "class_names.txt"), names)
        write_json(os.path.join(temporary, SUMMARY), summary)
    logging.info("drew %d files into %s", len(files), config.output_dir)
    return summary


def _finished(directory: str, settings: dict) -> dict | None:
    """The summary of a data set that is there already, None if nothing is."""
    if not exists(directory) and not os.path.lexists(directory):
        return None
    if not is_directory(directory):
        raise UserError(f"--output_dir={directory} is a file; give a directory")
    summary_path = join(directory, SUMMARY)
    if exists(summary_path):
        summary = read_json(summary_path)
        if isinstance(summary, dict) and summary.get("settings") == settings:
            return summary
        raise UserError(
            f"--output_dir={directory} holds demo photos of other settings (see {SUMMARY} there);"
            " remove it or give another directory"
        )
    if not is_replaceable(directory, last=SUMMARY):
        raise UserError(
            f"--output_dir={directory} holds files that are not demo photos; give a directory that"
            " is new or empty"
        )
    return None


def _plan_photos(split: str, per_class: int, things: tuple[Thing, ...]) -> list[DemoFile]:
    part = SPLITS.index(split)
    infix = "_val_" if split == "validation" else "_"
    return [
        DemoFile(
            path=f"{split}/{thing.synset}/{thing.synset}{infix}{number}.JPEG",
            thing=thing,
            entropy=(part, _ALL_THINGS.index(thing), number),
        )
        for thing in things
        for number in range(per_class)
    ]


def _plan_bad_files(split: str, things: tuple[Thing, ...]) -> list[DemoFile]:
    """Bad files, dealt to the classes in turn."""
    files: list[DemoFile] = []
    for kind in REPAIRABLE_KINDS + REJECTED_KINDS:
        for number in range(BAD_FILES_PER_KIND[split]):
            thing = things[len(files) % len(things)]
            path = f"{split}/{thing.synset}/bad_{kind}_{number}.JPEG"
            # The 1 behind them keeps these random numbers apart from those of good photos.
            entropy = (SPLITS.index(split), _ALL_THINGS.index(thing), len(files), 1)
            files.append(DemoFile(path, thing, entropy, kind))
    return files


def _count(files: list[DemoFile], split: str) -> dict[str, int]:
    kinds = [file.kind for file in files if file.path.startswith(f"{split}/")]
    rejected = sum(kind in REJECTED_KINDS for kind in kinds)
    return {"files": len(kinds), "examples": len(kinds) - rejected, "rejected": rejected}


def _draw_all(files: list[DemoFile], directory: str, config: DemoConfig) -> None:
    tasks = [
        files[start : start + FILES_PER_TASK] for start in range(0, len(files), FILES_PER_TASK)
    ]
    draw = functools.partial(_draw_files, directory=directory, seed=config.seed)
    workers = min(config.num_workers or os.cpu_count() or 1, len(tasks))
    with Progress(len(files), "photo", "drawing") as progress:
        if workers == 1:
            for task in tasks:
                progress.update(draw(task))
            return
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent
        )
        try:
            for count in pool.map(draw, tasks):
                progress.update(count)
        except BrokenProcessPool:
            raise UserError(
                "a process that draws was killed, perhaps for lack of memory: run the same command"
                " with fewer --num_workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_files(files: list[DemoFile], directory: str, seed: int) -> int:
    for file in files:
        with open(os.path.join(directory, file.path), "wb") as output:
            output.write(_content(file, np.random.default_rng([seed, *file.entropy])))
    return len(files)


def _content(file: DemoFile, rng: np.random.Generator) -> bytes:
    if file.kind == "empty":
        return b""
    if file.kind == "text":
        return b"<html><body><h1>404 Not Found</h1>This photo was removed.</body></html>\n"
    photo = draw_scene(file.thing, rng)
    if file.kind == "png":
        return _encode(photo, "PNG")
    if file.kind == "cmyk":
        return _encode(photo.convert("CMYK"), "JPEG", quality=90)
    if file.kind == "truncated":
        content = _encode(photo, "JPEG", quality=90)
        return content[: len(content) * 3 // 5]
    if rng.random() < 0.03:
        photo = photo.convert("L")
    return _encode(
        photo,
        "JPEG",
        quality=int(rng.integers(40, 98)),
        # Without colour there is nothing to subsample, and Pillow ignores it.
        subsampling=str(rng.choice(["4:2:0", "4:4:4"])),
        progressive=bool(rng.random() < 0.1),
    )


def _encode(photo: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, image_format, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    run(draw_photos, DemoConfig)
