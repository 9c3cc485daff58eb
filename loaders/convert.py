"""Converts checkpoints between TF1 (slim) and TF2: `python -m loaders.convert`.

To TF2, the output directory holds the weights by name in tf.train.CheckpointManager's layout,
moving averages beside the weights themselves, the record that says what they belong to
(`model.json`), and where each of them came from (`mapping.json`). To TF1, it holds slim's names and
shapes. There and back again gives the bytes of every tensor.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from training.models.configs import model_names
from training.models.record import FILE_NAME as RECORD

if TYPE_CHECKING:
    from loaders.open import OpenCheckpoint
    from loaders.zoo import ZooRow

MAPPING = "mapping.json"

# A training run and an export hold a model.json too, and much else.
_OF_OTHERS = ("config.json", "checkpoints", "export.json")


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What is converted."""

    output_dir: str = flag(help="directory to write; a converted checkpoint there is replaced")
    checkpoint_path: str | None = flag(
        None, help="checkpoint: its path without '.index', or its directory"
    )
    checkpoint: str | None = flag(
        None,
        help="a released checkpoint by name, to be fetched; `python -m loaders.zoo` lists them",
    )
    cache_dir: str | None = flag(
        None, help="where fetched checkpoints are kept; by default ~/.cache/mobilenet-pipeline"
    )
    to: str = flag("tf2", help="format to write", choices=("tf2", "tf1"))
    model_name: str = flag(
        "auto", help="architecture; auto finds out", choices=("auto", *model_names())
    )
    width_multiplier: float | None = flag(None, help="by default what the checkpoint looks like")
    resolution: int | None = flag(
        None, help="height and width of the input in pixels; of a TF1 checkpoint 224 by default"
    )
    weights: str | None = flag(
        None,
        help="what the converted checkpoint is used with: its averages where it has any, or raw;"
        " by default averages, and for a released checkpoint what gives its published accuracy",
        choices=("averages", "raw"),
    )
    quantization_aware: bool = flag(
        False, help="keep the ranges of an 8-bit checkpoint, for the fake-quantised model"
    )
    drop_background: bool = flag(
        False, help="drop the logit of the background class: 1001 outputs become 1000"
    )

    def __post_init__(self):
        if bool(self.checkpoint) == bool(self.checkpoint_path):
            raise UsageError("give either --checkpoint_path or --checkpoint, the name of a release")
        if self.cache_dir and files.is_remote(self.cache_dir):
            raise UsageError(f"--cache_dir={self.cache_dir} must be a local directory")
        if self.to == "tf1" and (self.drop_background or self.checkpoint):
            raise UsageError("--drop_background and --checkpoint go with --to=tf2")


def convert(config: ConvertConfig) -> None:
    """Converts a TF1 checkpoint into a TF2 one with the same logits, or back."""
    is_ours = files.is_replaceable(config.output_dir, last=RECORD)
    if not is_ours or any(files.exists(files.join(config.output_dir, n)) for n in _OF_OTHERS):
        raise UserError(
            f"--output_dir={config.output_dir} is a file, or holds files that are no converted"
            " checkpoint: give another directory"
        )
    released = _fetch(config) if config.checkpoint else None
    from training import runtime

    runtime.start()
    from loaders.open import ModelRequest, open_checkpoint

    if released:
        row, path, weights = released
        request = ModelRequest(row.model_name, row.width_multiplier, row.resolution)
    else:
        path, weights = config.checkpoint_path, config.weights or "averages"
        request = ModelRequest(config.model_name, config.width_multiplier, config.resolution)
    request = dataclasses.replace(request, quantization_aware=config.quantization_aware)
    checkpoint = open_checkpoint(path, request, weights)
    files.require_outside(checkpoint.path, config.output_dir, "output_dir")
    with files.atomic_directory(config.output_dir, last=RECORD) as directory:
        if config.to == "tf1":
            _write_tf1(checkpoint, directory)
        else:
            _write_tf2(checkpoint, directory, config.drop_background)
    logging.info("converted to %s in %s", config.to, config.output_dir)
    if released and row.top_1:
        logging.info("published: top-1 %.1f %% on ImageNet's validation photos", row.top_1)


def _fetch(config: ConvertConfig) -> tuple[ZooRow, str, str]:
    """A released checkpoint: its row, where it was unpacked, and the weights to use."""
    from loaders.archive import fetch_checkpoint
    from loaders.zoo import find_row

    row = find_row(config.checkpoint)
    weights = config.weights or row.weights
    return row, fetch_checkpoint(row, weights, config.cache_dir), weights


def _write_tf2(checkpoint: OpenCheckpoint, directory: str, drop_background: bool) -> None:
    from loaders.background import without_background
    from training.checkpoints import write_weights

    stored, record = checkpoint.stored, checkpoint.record
    if stored.mapping is None:
        raise UserError(f"{checkpoint.path} is a TF2 checkpoint already: --to=tf1 converts it back")
    if drop_background:
        record, stored = without_background(record, stored)
    write_weights(directory, stored.raw, stored.averages, stored.step)
    record.write(directory)
    files.write_json(files.join(directory, MAPPING), checkpoint.stored.mapping.to_json())
    logging.info(
        "%s at width %g with %d outputs; used with its %s weights",
        record.config.name,
        record.config.width_multiplier,
        record.config.num_classes,
        record.weights,
    )
    checkpoint.stored.mapping.log(checkpoint.path)


def _write_tf1(checkpoint: OpenCheckpoint, directory: str) -> None:
    from loaders.tf1_writer import tf1_variables, write_tf1_checkpoint

    stored = checkpoint.stored
    if stored.mapping is not None:
        raise UserError(f"{checkpoint.path} is a TF1 checkpoint already")
    variables = tf1_variables(checkpoint.record.config.family.scope, stored)
    write_tf1_checkpoint(directory, variables, stored.step)
    checkpoint.record.write(directory)
    logging.info("%d variables under slim's names", len(variables))


if __name__ == "__main__":
    run(convert, ConvertConfig)
