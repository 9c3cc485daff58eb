"""Shows what a model would see: `python -m training.preview --data_dir=data --output=preview.png`.

Writes one picture. A row is a photo: first its evaluation image, then its training crops of the
first epochs under the flags in force, with all that is done to them: flip, colour, policy, mixing
with the neighbour, erasing. They are those that a run with this --seed would train on.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from training.config import AugmentationFlags, DataFlags

NUM_PHOTOS = 8  # even: neighbours are mixed
NUM_CROPS = 7
GAP = 4  # pixels between images
CAPTION = 14  # pixels for the class name below a row


@dataclasses.dataclass(frozen=True)
class PreviewFlags:
    """Where the picture goes."""

    output: str = flag(help="PNG file that is written")
    resolution: int = flag(224, help="height and width of the input in pixels")
    seed: int = flag(0, help="seed of order and augmentation, as in training")

    def __post_init__(self):
        if self.resolution < 1:
            raise UsageError(f"--resolution must be at least 1, not {self.resolution}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be at least 0 and below 2**32, not {self.seed}")


def preview(flags: PreviewFlags, data: DataFlags, augmentation: AugmentationFlags) -> None:
    """Writes a picture of evaluation images and training crops."""
    files.require_writable_file(flags.output, "output")
    from training.readers import open_split

    shards = open_split(data, data.train_split)
    if shards.num_examples < NUM_PHOTOS:
        raise UserError(
            f"{shards.name} has {shards.num_examples} examples, and a preview shows {NUM_PHOTOS}"
        )
    examples = np.linspace(0, shards.num_examples - 1, NUM_PHOTOS).astype(np.int64)
    images, names = make_images(shards, examples, flags, augmentation)
    png = io.BytesIO()
    contact_sheet(images, names).save(png, format="PNG")
    files.write_bytes(flags.output, png.getvalue())
    print(f"{flags.output}: {NUM_PHOTOS} photos, evaluation image and {NUM_CROPS} crops of each")


def make_images(
    shards: Any, examples: np.ndarray, flags: PreviewFlags, augmentation: AugmentationFlags
) -> tuple[np.ndarray, list[str]]:
    """What evaluation and training make of some examples.

    Args:
        shards: where they lie.
        examples: (n,) numbers of the examples; n is even.
        flags: resolution and seed.
        augmentation: what is done to them.

    Returns:
        (n, 1 + NUM_CROPS, height, width, 3) uint8, and the n class names.
    """
    import tensorflow as tf

    from training.augmentation import prepare
    from training.input_pipeline import TrainingInput, evaluation_example, training_example
    from training.randomness import example_keys

    size = (flags.resolution, flags.resolution)
    # Black and white are to be those of a picture.
    augmentation = dataclasses.replace(augmentation, input_range=(0.0, 255.0))
    options = TrainingInput(len(examples), size, flags.seed, augmentation)
    records = [_record(shards, int(example)) for example in examples]
    evaluated = [
        evaluation_example(shards, r, size, (0.0, 255.0), augmentation.eval_preprocessing)
        for r in map(tf.constant, records)
    ]
    columns = [tf.stack([example["images"] for example in evaluated])]
    for epoch in range(NUM_CROPS):
        keys = tf.constant(example_keys(flags.seed, epoch, examples))
        crops = [
            training_example(shards.parse(tf.constant(record)), options, shards.fused, example, key)
            for example, key, record in zip(examples, keys, records, strict=True)
        ]
        images, labels = (tf.stack([c[name] for c in crops]) for name in ("images", "class_index"))
        columns.append(prepare(images, labels, keys, augmentation, len(shards.classes), 0.0)[0])
    pixels = np.clip(np.round(np.stack(columns, axis=1)), 0, 255).astype(np.uint8)
    return pixels, [shards.classes[int(example["class_index"])] for example in evaluated]


def contact_sheet(images: np.ndarray, names: list[str]) -> Image.Image:
    """Lays images out in rows, the first of each set apart, with the row's name below.

    Args:
        images: (rows, columns, height, width, 3) uint8.
        names: a name for each row.
    """
    rows, columns, height, width, _ = images.shape
    step_down, step_right = height + CAPTION + GAP, width + GAP
    sheet = Image.new("RGB", (columns * step_right + 3 * GAP, rows * step_down + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row in range(rows):
        top = GAP + row * step_down
        for column in range(columns):
            left = GAP + column * step_right + (2 * GAP if column else 0)
            sheet.paste(Image.fromarray(images[row, column]), (left, top))
        draw.text((GAP, top + height + 1), names[row], fill="black")
    return sheet


def _record(shards: Any, example: int) -> bytes:
    shard, record = shards.place_of(example)
    return shards.read(shard, record, 1)[0]


if __name__ == "__main__":
    run(preview, PreviewFlags, DataFlags, AugmentationFlags)
