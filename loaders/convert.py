"""Converts a TF1 checkpoint into a TF2 one: `python -m loaders.convert`.

The output directory holds the weights by name in tf.train.CheckpointManager's layout, the record
that says what they belong to (`model.json`), and where each of them came from (`mapping.json`).
"""

from __future__ import annotations

import dataclasses
import logging
import os

from common.command import flag, run
from common.errors import UserError
from common.files import atomic_directory, write_json
from training.models.archs import model_names


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What is converted."""

    checkpoint_path: str = flag(help="TF1 checkpoint: its path without '.index'")
    output_dir: str = flag(help="directory to write; what it held before is replaced")
    model_name: str = flag("mobilenet_v1", help="architecture", choices=model_names())
    width_multiplier: float | None = flag(None, help="by default what the checkpoint looks like")
    resolution: int = flag(224, help="height and width of the input in pixels")
    weights: str = flag(
        "averages", help="the moving averages where there are any", choices=("averages", "raw")
    )


def convert(config: ConvertConfig) -> None:
    """Converts a TF1 checkpoint into a TF2 one with the same logits."""
    from training import runtime

    runtime.start()
    from loaders.open import ModelRequest, open_checkpoint
    from training.checkpoints import write_weights

    if os.path.exists(config.output_dir) and not _is_replaceable(config.output_dir):
        raise UserError(
            f"--output_dir={config.output_dir} is a file, or holds files that are no converted"
            " checkpoint: give another directory"
        )
    request = ModelRequest(config.model_name, config.width_multiplier, config.resolution)
    checkpoint = open_checkpoint(config.checkpoint_path, request, config.weights)
    if checkpoint.mapping is None:
        raise UserError(f"{checkpoint.path} is a TF2 checkpoint already")
    with atomic_directory(config.output_dir) as directory:
        write_weights(directory, checkpoint.values)
        checkpoint.record.write(directory)
        write_json(os.path.join(directory, "mapping.json"), checkpoint.mapping.to_json())
    model = checkpoint.record.config
    logging.info(
        "%s (%s at width %g, %d outputs, %s weights): %d variables fill %d weights, %d are left"
        " over with a reason; see %s",
        checkpoint.path,
        model.name,
        model.width_multiplier,
        model.num_classes,
        checkpoint.weights,
        len(checkpoint.mapping.sources),
        len(checkpoint.values),
        len(checkpoint.mapping.left),
        os.path.join(config.output_dir, "mapping.json"),
    )


def _is_replaceable(directory: str) -> bool:
    if not os.path.isdir(directory):
        return False
    return not os.listdir(directory) or os.path.exists(os.path.join(directory, "mapping.json"))


if __name__ == "__main__":
    run(convert, ConvertConfig)
