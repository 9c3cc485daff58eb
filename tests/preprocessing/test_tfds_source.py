"""`tfds:NAME`: what is listed and read is what TFDS itself yields."""

import collections
import io
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from common.errors import UserError
from preprocessing.sources import SourceReader, list_source, parallel
from preprocessing.sources.example_fields import MalformedError, Piece, find_features
from preprocessing.sources.record_files import RecordFile, find_images
from preprocessing.sources.views import open_view

from .conftest import ROOT, encoded

LABELS = ("zebra", "ox/cow", "ant")
FILE_NAMES = ("photo.jpg", "photo.jpg", "sub/photo.jpg", "photo_2.jpg", "b", "", "é 図.png")
PHOTOS = {
    split: [(encoded(seed=seed), LABELS[seed % 7 % 3]) for seed in seeds]
    for split, seeds in (("train", range(40)), ("validation", range(50, 58)))
}


class Photos(tfds.core.GeneratorBasedBuilder):
    """A data set of few photos, made by TFDS itself."""

    VERSION = tfds.core.Version("1.2.3")
    extra: dict = {}  # noqa: RUF012 - TFDS makes one builder at a time

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=LABELS),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({**features, **self.extra})
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in PHOTOS}

    def _generate_examples(self, split):
        for number, (photo, label) in enumerate(PHOTOS[split]):
            values = {"image": io.BytesIO(photo), "label": label}
            yield number, {**values, **self.extra_values(number)}

    def extra_values(self, number):
        return {}


class PlainPhotos(Photos):
    """Without file names."""


class NamedPhotos(Photos):
    """With file names, some of them the same, and other features around them."""

    extra = {  # noqa: RUF012
        "file_name": tfds.features.Text(),
        "a": tfds.features.Sequence(tf.int64),
        "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}),
        "zone": tf.float32,
    }

    def extra_values(self, number):
        box = tfds.features.BBox(ymin=0.1, xmin=0.2, ymax=0.3, xmax=0.4)
        return {
            "file_name": FILE_NAMES[number % len(FILE_NAMES)],
            "a": list(range(-number, number * 200)),
            "objects": [{"bbox": box}] * (number % 3),
            "zone": 0.5,
        }


class UnlabelledPhotos(Photos):
    """As ImageNet's test split: the label says that it is not known."""

    def _generate_examples(self, split):
        for number, (photo, _) in enumerate(PHOTOS[split]):
            yield number, {"image": io.BytesIO(photo), "label": -1}


class FailingPhotos(Photos):
    """One that cannot be fetched."""

    def _split_generators(self, dl_manager):
        raise ConnectionError("Name or service not known")


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """A data set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
        )

    def _split_generators(self, dl_manager):
        return {"train": iter(())}

    def _generate_examples(self):
        return iter(())


def as_tfds_yields_them(name, split, tfds_dir):
    """Records of a split in the order of its files."""
    return list(
        tfds.builder(name, data_dir=tfds_dir)
        .as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
            shuffle_files=False,
        )
        .as_numpy_iterator()
    )


def read_all(listing) -> dict[str, bytes]:
    with SourceReader(listing.root) as reader:
        return {image.key: content for image, content in reader.read_ahead(listing.images)}


@pytest.mark.parametrize("split", PHOTOS)
def test_without_file_names_images_are_numbered_as_tfds_yields_them(tmp_path, split):
    listing = list_source("tfds:plain_photos", split, tfds_dir=str(tmp_path))
    classes = ("zebra", "ox_cow", "ant")
    assert listing.classes == classes and listing.kind == "TFDS data set"
    records = as_tfds_yields_them("plain_photos", split, tmp_path)
    expected = {
        f"{classes[record['label']]}/{split}_{number:07d}.jpg": record["image"]
        for number, record in enumerate(records)
    }
    assert len(expected) == len(PHOTOS[split])
    assert read_all(listing) == expected
    assert sorted(expected.values()) == sorted(photo for photo, _ in PHOTOS[split])
    assert [image.key for image in listing.images] == sorted(expected)
    assert listing == list_source("tfds:plain_photos", split, tfds_dir=str(tmp_path))


def test_file_names_become_keys_and_a_taken_one_gets_a_number(tmp_path):
    listing = list_source("tfds:named_photos", "train", tfds_dir=str(tmp_path))
    found = read_all(listing)
    assert len(found) == len(PHOTOS["train"]) == len(listing.images)
    records = as_tfds_yields_them("named_photos", "train", tmp_path)
    first: dict[str, bytes] = {}
    counts: collections.Counter[str] = collections.Counter()
    for number, record in enumerate(records):
        class_name = listing.classes[record["label"]]
        name = record["file_name"].decode().rpartition("/")[2] or f"train_{number:07d}.jpg"
        first.setdefault(f"{class_name}/{name}", record["image"])
        counts[class_name, record["image"]] += 1
    assert {key: found[key] for key in first} == first
    assert counts == collections.Counter(
        (key.partition("/")[0], content) for key, content in found.items()
    )
    assert {image.class_name for image in listing.images} == set(listing.classes)


def test_processes_list_what_one_process_lists(tmp_path, monkeypatch):
    builder = NamedPhotos(data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=7))
    assert len(builder.info.splits["train"].filepaths) == 7
    expected = list_source("tfds:named_photos", "train", tfds_dir=str(tmp_path))
    assert len({image.path for image in expected.images}) == 7
    monkeypatch.setattr(parallel, "PROCESSES_FROM_BYTES", 0)
    assert list_source("tfds:named_photos", "train", tfds_dir=str(tmp_path)) == expected
    path = builder.info.splits["train"].filepaths[3]
    content = path.read_bytes()
    for changed, words in (
        (content[:-7], f"cut: it ends at byte {len(content) - 7}, within a record"),
        (content[:5], "cut: it ends at byte 5"),
        (b"\1" + content[1:], "damaged: at byte 0 there is no TFRecord header"),
        (content + content, "records, and .* says"),
    ):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=words) as caught:
            list_source("tfds:named_photos", "train", tfds_dir=str(tmp_path))
        assert str(path) in str(caught.value)


def test_mistakes_are_one_clear_line(tmp_path):
    for name, split, words in (
        ("no_such_photos", "train", "TFDS has no such data set"),
        ("tiny_texts", "train", "not a data set for image classification, its features are text"),
        ("plain_photos", "test", "has no split 'test', only train, validation"),
        ("unlabelled_photos", "train", r"record 0 of split 'train' has the label -1"),
        ("failing_photos", "train", "Name or service not known; check the network"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            list_source(f"tfds:{name}", split, tfds_dir=str(tmp_path))
        assert name in str(caught.value)


def test_files_that_are_not_tfrecord_are_refused(tmp_path):
    PlainPhotos(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match="are array_record, only tfrecord can be read"):
        list_source("tfds:plain_photos", "train", tfds_dir=str(tmp_path))


def test_workers_read_without_tensorflow(tmp_path):
    listing = list_source("tfds:plain_photos", "validation", tfds_dir=str(tmp_path))
    image = listing.images[0]
    code = (
        "import sys\n"
        "from preprocessing.sources import SourceReader\n"
        "root, path, offset, size = sys.argv[1:]\n"
        "sys.stdout.buffer.write(SourceReader(root).read(path, int(offset), int(size)))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    place = [listing.root, image.path, str(image.offset), str(image.num_bytes)]
    done = subprocess.run(
        [sys.executable, "-c", code, *place], cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout == read_all(listing)[image.key]


def random_example(rng: random.Random) -> tf.train.Example:
    """An Example of features of every kind and size, in no order."""
    example = tf.train.Example()
    names = ["image", "label", "file_name", "x", "image/filename", "labels", "é", "", "n" * 300]
    for name in rng.sample(names, rng.randrange(len(names) + 1)):
        feature = example.features.feature[name]
        kind = rng.choice(["bytes", "int64", "float", "none", "empty bytes", "empty int64"])
        count = rng.choice([1, 1, 1, 2, 40])
        if kind == "bytes":
            sizes = [rng.choice([0, 1, 127, 128, 5000, 20_000]) for _ in range(count)]
            feature.bytes_list.value.extend(map(rng.randbytes, sizes))
        elif kind == "int64":
            values = [rng.choice([0, 1, -1, 127, 128, 999, 2**63 - 1, -(2**63)])] * count
            feature.int64_list.value.extend(values)
        elif kind == "float":
            feature.float_list.value.extend([rng.random()] * count)
        elif kind == "empty bytes":
            feature.bytes_list.SetInParent()
        elif kind == "empty int64":
            feature.int64_list.SetInParent()
    return example


def values_of(example: tf.train.Example, keys) -> dict:
    """The first value of each of `keys`, as protobuf's own parser sees it."""
    found = {}
    for key in keys:
        if key.decode() in example.features.feature:
            feature = example.features.feature[key.decode()]
            values = feature.bytes_list.value or feature.int64_list.value
            if values:
                found[key] = values[0]
    return found


def find_in(content: bytes, keys, tmp_path) -> dict:
    (tmp_path / "example").write_bytes(b"before" + content + b"behind")
    with open_view(str(tmp_path / "example"), "example") as view:
        found = find_features(view, 6, 6 + len(content), keys)
        return {
            key: view.read_at(*value) if isinstance(value, Piece) else value
            for key, value in found.items()
        }


KEYS = (b"image", b"label", b"file_name", b"missing", "é".encode())


def test_values_are_those_that_protobuf_finds(tmp_path):
    rng = random.Random(1)
    seen = set()
    for _ in range(300):
        example = random_example(rng)
        expected = values_of(example, KEYS)
        assert find_in(example.SerializeToString(), KEYS, tmp_path) == expected
        seen |= {(key, type(value)) for key, value in expected.items()}
    assert len(seen) == 8


def test_parts_of_one_example_laid_end_to_end_are_merged_as_by_protobuf(tmp_path):
    """Which is what the encoding promises: maps, messages and lists that come in parts."""
    rng = random.Random(2)
    for _ in range(100):
        content = b"".join(random_example(rng).SerializeToString() for _ in range(3))
        expected = values_of(tf.train.Example.FromString(content), KEYS)
        assert find_in(content, KEYS, tmp_path) == expected


def length_delimited(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    "feature",
    [
        bytes([3 << 3 | 2, 4, 1 << 3, 5, 1 << 3, 6]),  # integers that are not packed
        bytes([3 << 3 | 2, 2, 1 << 3, 5, 1 << 3 | 2, 2, 1, 7]),  # kinds that take turns
        length_delimited(3, bytes([1 << 3, 5])) + length_delimited(1, length_delimited(1, b"x")),
        length_delimited(1, length_delimited(1, b"x")) + length_delimited(3, bytes([1 << 3, 5])),
        length_delimited(3, b"") + length_delimited(3, length_delimited(1, bytes([9, 8]))),
        bytes([9 << 3, 1]) + length_delimited(3, bytes([7 << 3, 1, 1 << 3, 5])),  # unknown fields
        bytes([9 << 3 | 1]) + bytes(8) + bytes([9 << 3 | 5]) + bytes(4),
    ],
)
def test_odd_encodings_are_read_as_by_protobuf(tmp_path, feature):
    for entry in (
        length_delimited(1, b"label") + length_delimited(2, feature),
        length_delimited(2, feature) + length_delimited(1, b"label"),
        length_delimited(1, b"no") + length_delimited(2, feature) + length_delimited(1, b"label"),
    ):
        content = length_delimited(1, length_delimited(1, entry))
        try:
            example = tf.train.Example.FromString(content)
        except Exception:
            with pytest.raises(MalformedError):
                find_in(content, KEYS, tmp_path)
        else:
            assert find_in(content, KEYS, tmp_path) == values_of(example, KEYS)


def test_what_is_no_example_is_an_error_and_no_crash(tmp_path):
    content = tf.train.Example(
        features=tf.train.Features(
            feature={"label": tf.train.Feature(int64_list=tf.train.Int64List(value=[300]))}
        )
    ).SerializeToString()
    for length in range(1, len(content)):
        with pytest.raises(MalformedError):
            find_in(content[:length], KEYS, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(300):
        try:
            find_in(rng.bytes(60), KEYS, tmp_path)
        except MalformedError:
            continue
    path = str(tmp_path / "photos.tfrecord")
    file = RecordFile(path, "image", "label", None)
    for record, words in (
        (b"\xff" * 20, "record 1 at byte .* is no tf.train.Example"),
        (content, "record 1 at byte .* has no image under 'image'"),
    ):
        example = tf.train.Example()
        example.features.feature["image"].bytes_list.value.append(b"photo")
        example.features.feature["label"].int64_list.value.append(2)
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(example.SerializeToString())
        (image,) = find_images(file)
        assert (image.num_bytes, image.label, image.name) == (5, 2, "")
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(example.SerializeToString())
            writer.write(record)
        with pytest.raises(UserError, match=words):
            find_images(file)
