import subprocess
import sys

import pytest
import tensorflow as tf

from preprocessing.examples import encode_example, parse_example, stored_jpeg
from preprocessing.tfrecord import frame, payload_of

from .conftest import ROOT


def by_tensorflow(jpeg, width, height, class_index, class_name, file_name) -> bytes:
    def data(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def ints(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    none = tf.train.Feature(float_list=tf.train.FloatList())
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
                "image/class/label": ints(class_index + 1),
                "image/class/synset": data(class_name.encode()),
                "image/class/text": data(class_name.encode()),
                "image/object/bbox/xmin": none,
                "image/object/bbox/xmax": none,
                "image/object/bbox/ymin": none,
                "image/object/bbox/ymax": none,
                "image/object/bbox/label": ints(),
                "label": ints(class_index),
                "file_name": data(file_name.encode()),
            }
        )
    ).SerializeToString(deterministic=True)


CASES = [
    (b"", 1, 1, 0, "a", "a"),
    (b"x" * 100, 127, 128, 126, "n01440764", "n01440764_10026.JPEG"),
    (b"x" * 127, 300, 16384, 127, "Zwergpinscher, groß", "Föhn 図.JPEG"),
    (b"x" * 128, 500, 375, 999, "", "f" * 200),
    (bytes(range(256)) * 500, 65500, 65500, 20_000, "name with / slash", "x.png"),
    (b"\xff" * 2_100_000, 1, 2**31, 0, "c" * 300, "y"),
]


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_those_of_tensorflows_own_example(case):
    parts = encode_example(*case)
    assert b"".join(parts) == by_tensorflow(*case)
    assert parts[1] is case[0], "the image must not be copied"


def test_parse_example_reads_one_and_a_batch():
    serialized = [b"".join(encode_example(*case)) for case in CASES]
    batch = parse_example(tf.constant(serialized))
    for number, case in enumerate(CASES):
        one = parse_example(tf.constant(serialized[number]))
        assert one["jpeg"].shape == one["class_index"].shape == ()
        for read in (one, {name: value[number] for name, value in batch.items()}):
            assert read["jpeg"].numpy() == case[0]
            assert read["class_index"].numpy() == case[3]
            assert read["class_index"].dtype == tf.int64
            assert read["file_name"].numpy().decode() == case[5]


def test_the_image_is_found_without_tensorflow():
    for case in CASES:
        assert stored_jpeg(b"".join(encode_example(*case))) == case[0]
    with pytest.raises(ValueError, match="image/encoded"):
        stored_jpeg(tf.train.Example().SerializeToString() or b"\x0a\x00")


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
        "import sys; import preprocessing.beam_job;"
        "sys.exit('tensorflow' in sys.modules or 'training' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
