"""Full-integer files of real checkpoints, on real photos."""

import numpy as np
import pytest

from loaders.open import ModelRequest, open_checkpoint
from pipeline.formats.deployment import build_deployment_model
from pipeline.formats.int8 import Int8Flags, write_int8
from pipeline.formats.int8.running import logits_of
from preprocessing.examples import parse_example
from tests.pipeline.conftest import start
from training.image_ops import decode_for_evaluation
from training.shards import Shards

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def real_photos(reference_data, tmp_path_factory):
    """500 photos at 224 pixels, shuffled by a fixed seed: (images, class indices)."""
    import tensorflow as tf

    directory = tmp_path_factory.mktemp("real")
    code = start(
        "build",
        source=reference_data / "imagenet_sample",
        output_dir=directory,
        split="validation",
        num_shards=8,
        classes=reference_data / "imagenet_synsets.txt",
    )
    assert code == 0
    shards = Shards.open(str(directory), "validation")
    examples = [parse_example(e) for e in tf.data.TFRecordDataset(list(shards.paths))]
    images = [
        decode_for_evaluation(e["jpeg"], (224, 224), (-1.0, 1.0), "inception").numpy()
        for e in examples
    ]
    order = np.random.default_rng(0).permutation(len(images))
    return np.stack(images)[order], np.array([int(e["class_index"]) for e in examples])[order]


def deployment_of(reference_data, name):
    prefix = str(reference_data / "tf1_checkpoints" / name)
    checkpoint = open_checkpoint(prefix, ModelRequest(resolution=224))
    return build_deployment_model(checkpoint.build(), checkpoint.record.config), checkpoint.record


@pytest.mark.parametrize(
    ("name", "right"), [("mobilenet_v1_0.75_224", 417), ("dq_mobilenet_v2_1.0_224", 424)]
)
def test_at_most_one_and_a_half_points_are_lost(name, right, reference_data, real_photos, tmp_path):
    images, classes = real_photos
    model, record = deployment_of(reference_data, name)
    path = tmp_path / "int8.tflite"
    outcome = write_int8(model, record, images[:200], str(path))
    found = np.argmax(logits_of(path.read_bytes(), images), axis=1)
    assert np.sum(found == classes + record.labels.offset) >= right - 0.015 * len(images)
    assert outcome.agreement >= 0.9


def test_hard_swish_is_kept_accurate(reference_data, real_photos, tmp_path):
    """At first the file agrees on some 81 %."""
    images, _ = real_photos
    model, record = deployment_of(reference_data, "dq_mobilenet_v3_small_1.0_224")
    path = tmp_path / "int8.tflite"
    outcome = write_int8(model, record, images[:200], str(path), Int8Flags())
    assert outcome.narrow_agreement < 0.9 <= outcome.agreement
    assert len(outcome.wider_layers) > 0
    assert outcome.narrow_bytes < outcome.bytes < 2 * outcome.narrow_bytes
    expected = model.predict(images[200:], verbose=0).argmax(axis=1)
    found = np.argmax(logits_of(path.read_bytes(), images[200:]), axis=1)
    assert np.mean(found == expected) >= 0.85  # of photos that decided nothing
