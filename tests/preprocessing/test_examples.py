import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.examples import encode_example, parse_example
from preprocessing.tfrecord import frame, payload_of

from .conftest import ROOT, encoded


def by_tensorflow(
    jpeg, *, width, height, class_index, class_name, class_text, file_name, boxes=()
) -> bytes:
    def data(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def ints(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def side(position):
        values = [box[position] for box in boxes]
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    label = class_index + 1
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                "image/encoded": data(jpeg),
                "image/height": ints(height),
                "image/width": ints(width),
                "image/channels": ints(3),
                "image/colorspace": data(b"RGB"),
                "image/format": data(b"JPEG"),
                "image/filename": data(file_name.encode()),
                "image/class/label": ints(label),
                "image/class/synset": data(class_name.encode()),
                "image/class/text": data(class_text.encode()),
                "image/object/bbox/xmin": side(0),
                "image/object/bbox/ymin": side(1),
                "image/object/bbox/xmax": side(2),
                "image/object/bbox/ymax": side(3),
                "image/object/bbox/label": ints(*[label] * len(boxes)),
                "label": ints(class_index),
                "file_name": data(file_name.encode()),
            }
        )
    ).SerializeToString(deterministic=True)


def case(
    jpeg, width, height, class_index, class_name, class_text, file_name, boxes=()
) -> tuple[bytes, dict]:
    return jpeg, {
        "width": width,
        "height": height,
        "class_index": class_index,
        "class_name": class_name,
        "class_text": class_text,
        "file_name": file_name,
        "boxes": boxes,
    }


BOX = (0.1, 0.25, 0.75, 1.0)
CASES = [
    case(b"", 1, 1, 0, "a", "", "a"),
    case(b"x" * 100, 127, 128, 126, "n01440764", "tench, Tinca tinca", "n01440764_10026.JPEG"),
    case(b"x" * 127, 300, 16384, 127, "Pinscher", "Zwergpinscher, groß", "Föhn 図.JPEG", [BOX]),
    case(b"x" * 128, 500, 375, 999, "", "a class", "f" * 200, [BOX, (0.0, 0.0, 1.0, 1.0)]),
    case(bytes(range(256)) * 500, 65500, 65500, 20_000, "name / slash", "t" * 130, "x.png"),
    case(b"\xff" * 2_100_000, 1, 2**31, 0, "c" * 300, "t", "y", [(0.0, 0.0, 0.0, 0.0)] * 200),
]


def random_case(seed: int) -> tuple[bytes, dict]:
    """Sizes around the lengths at which a number takes one byte more."""
    chance = random.Random(seed)

    def size(*limits):
        return max(0, chance.choice(limits) + chance.randint(-60, 60))

    return case(
        chance.randbytes(size(0, 128, 16_384, 2_097_152)),
        size(128, 16_384),
        size(128, 16_384),
        size(0, 128, 16_384),
        "n" * size(0, 128),
        "t" * size(0, 128, 16_384),
        "f" * size(0, 128),
        [tuple(chance.random() for _ in range(4)) for _ in range(size(0, 30))],
    )


@pytest.mark.parametrize("jpeg, rest", [*CASES, *map(random_case, range(60))])
def test_bytes_are_those_of_tensorflows_own_example(jpeg, rest):
    parts = encode_example(jpeg, **rest)
    assert b"".join(parts) == by_tensorflow(jpeg, **rest)
    assert parts[1] is jpeg, "the image must not be copied"


@pytest.fixture
def slim_spec():
    """What tf-slim's `datasets/imagenet.py` and the first TPU models ask of a record."""
    return {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/format": tf.io.FixedLenFeature((), tf.string, default_value="jpeg"),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
        "image/class/text": tf.io.FixedLenFeature([], tf.string, default_value=""),
        "image/object/bbox/xmin": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/ymin": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/xmax": tf.io.VarLenFeature(tf.float32),
        "image/object/bbox/ymax": tf.io.VarLenFeature(tf.float32),
        "image/object/class/label": tf.io.VarLenFeature(tf.int64),
    }


@pytest.mark.parametrize("boxes", [[], [BOX], [BOX, (0.5, 0.0, 0.625, 0.125)]])
def test_tf_slim_reads_a_record(slim_spec, boxes):
    photo = encoded()
    _, rest = case(photo, 48, 32, 6, "n01494475", "hammerhead", "n01494475_1.JPEG", boxes)
    record = b"".join(encode_example(photo, **rest))
    read = tf.io.parse_single_example(record, slim_spec)
    assert read["image/format"].numpy().lower() in (b"jpeg", b"jpg")
    assert tf.io.decode_jpeg(read["image/encoded"], channels=3).shape == (32, 48, 3)
    assert read["image/class/label"].numpy() == 7
    assert read["image/class/text"].numpy() == b"hammerhead"
    for position, side in enumerate(("xmin", "ymin", "xmax", "ymax")):
        values = read[f"image/object/bbox/{side}"].values.numpy()
        np.testing.assert_array_equal(values, np.float32([box[position] for box in boxes]))
    # The classic records, whose key is image/object/bbox/label, have nothing under this one either.
    assert read["image/object/class/label"].values.shape == (0,)
    labels = tf.io.parse_single_example(
        record, {"image/object/bbox/label": tf.io.VarLenFeature(tf.int64)}
    )
    assert labels["image/object/bbox/label"].values.numpy().tolist() == [7] * len(boxes)


def test_tpu_models_read_a_record_and_find_labels_from_0():
    photo = encoded()
    _, rest = case(photo, 48, 32, 999, "n15075141", "toilet tissue", "n15075141_1.JPEG", [BOX])
    spec = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, ""),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64, -1),
    }
    read = tf.io.parse_single_example(b"".join(encode_example(photo, **rest)), spec)
    assert read["image/encoded"].numpy() == photo
    assert tf.cast(read["image/class/label"], tf.int32).numpy() - 1 == 999  # as they subtract it


def test_parse_example_reads_one_and_a_batch():
    serialized = [b"".join(encode_example(jpeg, **rest)) for jpeg, rest in CASES]
    batch = parse_example(tf.constant(serialized))
    for number, (jpeg, rest) in enumerate(CASES):
        one = parse_example(tf.constant(serialized[number]))
        assert one["jpeg"].shape == one["class_index"].shape == ()
        for read in (one, {name: value[number] for name, value in batch.items()}):
            assert read["jpeg"].numpy() == jpeg
            assert read["class_index"].numpy() == rest["class_index"]
            assert read["class_index"].dtype == tf.int64
            assert read["file_name"].numpy().decode() == rest["file_name"]


def test_framing_is_tensorflows_own(tmp_path):
    payloads = [b"", b"one", bytes(range(256)) * 300]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    ours = b""
    for payload in payloads:
        header, footer = frame([payload[:5], payload[5:]])
        ours += header + payload + footer
    assert ours == (tmp_path / "theirs").read_bytes()


def test_a_flipped_bit_anywhere_in_a_record_is_noticed():
    header, footer = frame([b"payload"])
    record = header + b"payload" + footer
    assert payload_of(record) == b"payload"
    for position in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[position] ^= 1 << bit
            assert payload_of(bytes(damaged)) is None
    assert payload_of(record[:-1]) is None and payload_of(b"") is None


def test_what_workers_import_does_not_load_tensorflow():
    code = (
        "import sys; import preprocessing.runners.job;"
        "sys.exit('tensorflow' in sys.modules or 'training' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
