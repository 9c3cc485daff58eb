"""Reads examples of shards that others made, and refuses labels of no class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.shards import Parse

if TYPE_CHECKING:
    import tensorflow as tf


def parser(image: str, label: str, file_name: str, num_classes: int, first_label: int) -> Parse:
    """A parse function as `Shards` has it.

    In a record whose label is of no class it fails: a wrong class would go unnoticed.

    Args:
        image: name of the feature that holds the encoded image.
        label: of the one that holds its label.
        file_name: of the one that holds the file's name; it may be missing.
        num_classes: classes that there are.
        first_label: label of the first of them.
    """

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        spec = {
            image: tf.io.FixedLenFeature([], tf.string),
            label: tf.io.FixedLenFeature([], tf.int64),
            file_name: tf.io.FixedLenFeature([], tf.string, ""),
        }
        features = tf.io.parse_example(serialized, spec)
        names, class_index = features[file_name], features[label] - first_label
        last_label = first_label + num_classes - 1
        check = tf.debugging.Assert(
            tf.reduce_all((class_index >= 0) & (class_index < num_classes)),
            [
                f"label is not one of {first_label} to {last_label} (file name, label):",
                names,
                features[label],
            ],
        )
        with tf.control_dependencies([] if tf.executing_eagerly() else [check]):
            class_index = tf.identity(class_index)
        return {"jpeg": features[image], "class_index": class_index, "file_name": names}

    return parse
