"""Shards that others made, TFDS' and made-up ones, compared with what TensorFlow reads."""

import itertools
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.errors import UsageError, UserError
from training.config import DataFlags
from training.readers import offsets, open_split
from training.readers.memory import buffer_bytes, memory_note
from training.readers.slices import parse_split
from training.shard_errors import named_shard_errors

pytest_plugins = ["tests.storage_emulator"]

SYNSETS = [
    line.split("\t")[0]
    for line in (pathlib.Path(__file__).parents[2] / "preprocessing/imagenet_classes.tsv")
    .read_text()
    .splitlines()
    if not line.startswith("#")
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mobilenet-pipeline"


def jpeg_of(number: int, encode=tf.io.encode_jpeg) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6 + number % 5, 8, 3), np.uint8)
    return encode(pixels).numpy()


def ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def slim_record(number: int, label: int, **changes) -> bytes:
    """As tf-slim's build_imagenet_data.py writes it."""
    features = {
        "image/height": ints(6 + number % 5),
        "image/width": ints(8),
        "image/colorspace": texts(b"RGB"),
        "image/channels": ints(3),
        "image/class/label": ints(label),
        "image/class/synset": texts(SYNSETS[label - 1].encode()),
        "image/class/text": texts(b"some words"),
        "image/object/bbox/label": ints(*[label] * (number % 3)),
        "image/format": texts(b"JPEG"),
        "image/filename": texts(f"{SYNSETS[label - 1]}_{number}.JPEG".encode()),
        "image/encoded": texts(jpeg_of(number)),
    } | changes
    return tf.train.Example(
        features=tf.train.Features(feature={k: v for k, v in features.items() if v})
    ).SerializeToString()


def tpu_record(number: int, label: int) -> bytes:
    """As the TPU repository's imagenet_to_gcs.py writes it: without bounding boxes."""
    return slim_record(number, label, **{"image/object/bbox/label": None})


def label_of(number: int) -> int:
    return (number * 37) % 1000 + 1


def write_shards(directory, split, sizes, record=slim_record) -> list[str]:
    """Shards of so many records, numbered through."""
    directory.mkdir(parents=True, exist_ok=True)
    paths, number = [], 0
    for shard, size in enumerate(sizes):
        path = str(directory / f"{split}-{shard:05d}-of-{len(sizes):05d}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(size):
                writer.write(record(number, label_of(number)))
                number += 1
        paths.append(path)
    return paths


def all_records(shards) -> list[bytes]:
    return [payload for window in shards.windows(3) for payload in shards.read(*window)]


def by_tensorflow(paths) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(list(paths))]


SIZES = [4, 5, 1, 7]


@pytest.fixture
def slim(tmp_path) -> pathlib.Path:
    write_shards(tmp_path / "slim", "train", SIZES)
    return tmp_path / "slim"


@pytest.mark.parametrize(
    ("split", "below", "record"),
    [("train", ".", slim_record), ("validation", ".", tpu_record), ("train", "train", tpu_record)],
)
def test_classic_shards_are_read_as_tensorflow_reads_them(tmp_path, split, below, record):
    paths = write_shards(tmp_path / "data" / below, split, SIZES, record)
    shards = open_split(DataFlags(str(tmp_path / "data")), split)
    assert [pathlib.Path(path).resolve() for path in shards.paths] == [
        pathlib.Path(path).resolve() for path in paths
    ]
    theirs = by_tensorflow(paths)
    assert all_records(shards) == theirs and shards.num_examples == 17
    assert shards.sizes == SIZES and shards.first_examples == [0, 4, 9, 10, 17]
    assert shards.classes == tuple(SYNSETS) and shards.fused and shards.manifest is None
    parsed = shards.parse(tf.constant(theirs))
    assert parsed["jpeg"].numpy().tolist() == [jpeg_of(n) for n in range(17)]
    assert parsed["class_index"].numpy().tolist() == [label_of(n) - 1 for n in range(17)]
    assert parsed["file_name"][3].numpy().decode() == f"{SYNSETS[label_of(3) - 1]}_3.JPEG"
    dataset = tf.data.Dataset.from_tensor_slices(theirs).map(shards.parse)
    assert [int(e["class_index"]) for e in dataset] == parsed["class_index"].numpy().tolist()
    assert [shards.check(1, n) for n in range(5)] == [None] * 5


def test_missing_and_doubled_shards_are_named(slim):
    (slim / "train-00002-of-00004").unlink()
    with pytest.raises(UserError, match=r"lacks train-00002-of-00004: 3 of the 4 shards"):
        open_split(DataFlags(str(slim)), "train")
    write_shards(slim, "train", [1])
    with pytest.raises(UserError, match=r"more than one set: train-\?{5}-of-00001, train-"):
        open_split(DataFlags(str(slim)), "train")
    with pytest.raises(UserError, match="no finished split 'test'"):
        open_split(DataFlags(str(slim)), "test")
    with pytest.raises(UserError, match="does not exist"):
        open_split(DataFlags(str(slim / "nowhere")), "test")


def test_labels_that_begin_at_0_are_refused_when_the_shards_are_opened(tmp_path):
    def of_no_synset(number, label):
        return slim_record(
            number, label, **{"image/class/label": ints(number), "image/class/synset": None}
        )

    write_shards(tmp_path / "zero", "train", [3, 2], of_no_synset)
    with pytest.raises(UserError, match=r"record 0 of shard .*train-00000-of-00002.*has label 0"):
        open_split(DataFlags(str(tmp_path / "zero")), "train")

    def shifted(number, label):
        return slim_record(number, label, **{"image/class/label": ints(label - 1 or 1)})

    write_shards(tmp_path / "shifted", "train", [3, 2], shifted)
    with pytest.raises(
        UserError, match=r"label 74 for synset n\d+, which is class 75 of 1 to 1000"
    ):
        open_split(DataFlags(str(tmp_path / "shifted")), "train")


@pytest.mark.parametrize("label", [0, 1001, -1])
def test_a_label_of_no_class_is_an_error_that_names_the_record(tmp_path, label):
    def one_wrong(number, right):
        changes = {"image/class/label": ints(label)} if number == 6 else {}
        return slim_record(number, right, **changes)

    write_shards(tmp_path / "wrong", "train", SIZES, one_wrong)
    shards = open_split(DataFlags(str(tmp_path / "wrong")), "train")
    place = rf"record 2 of shard .*train-00001-of-00004, at byte {shards.bounds[1][2]}, .*"
    said = rf"label is not one of 1 to 1000 \(file name, label\): n\d+_6.JPEG {label}$"
    with pytest.raises(UserError, match=place + said), named_shard_errors(shards):
        dataset = tf.data.Dataset.from_tensor_slices(all_records(shards)).map(shards.parse)
        assert len(list(dataset)) < 17
    assert shards.check(1, 1) is None and "label" in shards.check(1, 2)


def test_shards_of_other_classes_are_numbered(tmp_path, caplog):
    def of_birds(number, label):
        return slim_record(number, label, **{"image/class/synset": texts(b"bird")})

    write_shards(tmp_path / "birds", "train", [2], of_birds)
    shards = open_split(DataFlags(str(tmp_path / "birds")), "train")
    assert shards.classes[:2] == ("class_0000", "class_0001") and "not ImageNet's" in caplog.text


def test_damaged_records_and_images_are_named(slim):
    shards = open_split(DataFlags(str(slim)), "train")
    path = pathlib.Path(shards.paths[3])
    content = bytearray(path.read_bytes())
    begin = int(shards.bounds[3][5])
    content[begin + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"record 5 of shard {path}, at byte {begin}, is damaged"):
        shards.read(3, 2, 5)
    assert len(shards.read(3, 0, 5)) == 5
    part = shards.part(12, 17, "end")
    assert part.check(0, 3) == f"record 5 of shard {path}, at byte {begin}, is damaged"
    assert [bool(record) for record in part.read(0, 2, 3, bad={3})] == [True, False, True]


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    def broken(number, label):
        image = {3: jpeg_of(3)[:40], 4: jpeg_of(4, tf.io.encode_png)}.get(number, jpeg_of(number))
        return slim_record(number, label, **{"image/encoded": texts(image)})

    write_shards(tmp_path / "broken", "train", [2, 5], broken)
    shards = open_split(DataFlags(str(tmp_path / "broken")), "train")
    reasons = [shards.check(1, record) for record in range(5)]
    assert [bool(reason) for reason in reasons] == [False, True, True, False, False]
    place = f"record 1 of shard {shards.paths[1]}, at byte {shards.bounds[1][1]}"
    assert reasons[1].startswith(place) and "_3.JPEG), holds an image that cannot be" in reasons[1]
    assert "is no JPEG" in reasons[2]
    with (
        pytest.raises(UserError, match="holds an image that cannot be"),
        named_shard_errors(shards),
    ):
        tf.io.decode_jpeg(jpeg_of(3)[:40])


def test_headers_that_are_damaged_and_files_that_are_cut_are_named(slim):
    path = slim / "train-00001-of-00004"
    content = path.read_bytes()
    bounds = open_split(DataFlags(str(slim)), "train").bounds[1]
    path.write_bytes(content[:-3])
    with pytest.raises(
        UserError, match=rf"record 4 .* at byte {bounds[4]}, goes on beyond the end"
    ):
        open_split(DataFlags(str(slim)), "train")
    path.write_bytes(content[: bounds[2]] + b"\x01" + content[bounds[2] + 1 :])
    with pytest.raises(UserError, match=rf"record 2 .* at byte {bounds[2]}, has a damaged header"):
        open_split(DataFlags(str(slim)), "train")


def test_what_was_found_is_cached_and_a_changed_file_is_looked_at_anew(slim, cache, monkeypatch):
    first = open_split(DataFlags(str(slim)), "train")
    assert len(list(cache.iterdir())) == 1
    scanned = []
    scan = offsets._scan
    monkeypatch.setattr(offsets, "_scan", lambda path: scanned.append(path) or scan(path))
    again = open_split(DataFlags(str(slim)), "train")
    assert not scanned and again.fingerprint == first.fingerprint
    assert all(map(np.array_equal, first.bounds, again.bounds))
    next(cache.iterdir()).write_bytes(b"damaged")
    assert open_split(DataFlags(str(slim)), "train").sizes == SIZES and len(scanned) == 4
    write_shards(slim, "train", [4, 5, 1, 8])
    changed = open_split(DataFlags(str(slim)), "train")
    assert changed.sizes == [4, 5, 1, 8] and changed.fingerprint != first.fingerprint


def test_a_long_look_for_records_tells_how_far_it_is(slim, monkeypatch, caplog):
    monkeypatch.setattr(offsets, "SECONDS_BEFORE_PROGRESS", -1)
    with caplog.at_level("INFO"):
        open_split(DataFlags(str(slim)), "train")
    assert "finding the records, once: 1 of 4 files done" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(slim, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_split(DataFlags(str(slim)), "train").num_examples == 17


@pytest.mark.parametrize(
    ("spec", "start", "stop"),
    [
        ("train[:98%]", 0, 17),
        ("train[:50%]", 0, 9),
        ("train[50%:]", 9, 17),
        ("train[:12.5%]", 0, 2),
        ("train[:10]", 0, 10),
        ("train[4:9]", 4, 9),
        ("train[5:7]", 5, 7),
        ("train[-3:]", 14, 17),
        ("train[:-10%]", 0, 15),
        ("train[:]", 0, 17),
    ],
)
def test_a_part_of_a_split_holds_its_records_under_their_numbers(slim, spec, start, stop):
    whole = by_tensorflow(sorted(map(str, slim.iterdir())))
    shards = open_split(DataFlags(str(slim)), spec)
    assert all_records(shards) == whole[start:stop]
    assert shards.num_examples == stop - start == sum(shards.sizes)
    numbers = [
        shards.first_examples[shard] + first + i
        for shard, first, count in shards.windows(2)
        for i in range(count)
    ]
    assert numbers == list(range(start, stop))
    assert shards.fingerprint == open_split(DataFlags(str(slim)), "train").fingerprint
    inner = shards.part(1, shards.num_examples, "inner")
    assert all_records(inner) == whole[start + 1 : stop] and inner.first_example == start + 1
    assert inner.where(0, 0).split(", at")[0] == whole_place(slim, start + 1)


def whole_place(slim, example) -> str:
    shards = open_split(DataFlags(str(slim)), "train")
    shard = int(np.searchsorted(shards.first_examples, example, "right")) - 1
    return f"record {example - shards.first_examples[shard]} of shard {shards.paths[shard]}"


@pytest.mark.parametrize("num_examples", [1, 7, 100, 1_281_167])
@pytest.mark.parametrize("percent", ["1", "33", "50", "98", "99.9"])
def test_two_parts_hold_every_example_once(num_examples, percent):
    places = []
    for spec in (f"train[:{percent}%]", f"train[{percent}%:]"):
        try:
            places.append(parse_split(spec).range_of(num_examples))
        except UsageError:
            assert round(num_examples * float(percent) / 100) in (0, num_examples)
    assert places[0][0] == 0 and places[-1][1] == num_examples
    assert all(one[1] == other[0] for one, other in itertools.pairwise(places))
    assert abs(places[0][1] - num_examples * float(percent) / 100) <= 0.5 or len(places) == 1


@pytest.mark.parametrize(
    "spec", ["", "train[", "train[5]", "train[a:]", "train[:5%%]", "a+b", "a/b"]
)
def test_what_is_no_split_is_said_to_be_none(spec):
    with pytest.raises(UsageError, match="is no split"):
        parse_split(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("train[:18]", "beyond the 17"), ("train[-18:]", "beyond"), ("train[5:5]", "no examples")],
)
def test_parts_that_are_not_there_are_refused(slim, spec, message):
    with pytest.raises(UsageError, match=message):
        open_split(DataFlags(str(slim)), spec)


def test_our_own_shards_are_found_by_their_manifest(drawn_data, tmp_path):
    whole = open_split(DataFlags(drawn_data), "train")
    assert whole.manifest.sha256 == whole.fingerprint and whole.classes == ("blue", "red")
    theirs = by_tensorflow(whole.paths)
    assert all_records(whole) == theirs
    both = [open_split(DataFlags(drawn_data), spec) for spec in ("train[:30%]", "train[30%:]")]
    assert [s.num_examples for s in both] == [12, 28]
    assert [*all_records(both[0]), *all_records(both[1])] == theirs
    copy = shutil.copytree(drawn_data, tmp_path / "copy")
    (copy / "train" / "manifest.json").unlink()
    with pytest.raises(UserError, match="no finished split 'train'"):
        open_split(DataFlags(str(copy)), "train")


def test_a_damaged_record_of_ours_names_its_photo(drawn_data, tmp_path):
    shutil.copytree(drawn_data, tmp_path / "copy")
    shards = open_split(DataFlags(str(tmp_path / "copy")), "train")
    name = shards.parse(tf.constant(shards.read(1, 3, 1)[0]))["file_name"].numpy().decode()
    path = pathlib.Path(shards.paths[1])
    content = bytearray(path.read_bytes())
    content[int(shards.bounds[1][3]) + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"record 3 of shard {path}.*made from .*{name}"):
        shards.read(1, 0, 5)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory) -> pathlib.Path:
    """Two data sets that TFDS made: of JPEGs stored as they are, and of arrays (PNG)."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")

    class Birds(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = (*(tfds.core.BuilderConfig(name=name) for name in ("small", "png")),)

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=["owl", "tit", "jay"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

        def _generate_examples(self, count):
            encode = tf.io.encode_png if self.builder_config.name == "png" else tf.io.encode_jpeg
            for number in range(count):
                path = root / f"{number}"
                path.write_bytes(jpeg_of(number, encode))
                yield number, {"image": str(path), "label": number % 3}

    for config in ("small", "png"):
        builder = Birds(data_dir=str(root / "data"), config=config)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
        )
    return root / "data"


@pytest.mark.parametrize("config", ["small", "png"])
def test_tfds_data_is_read_as_tfds_reads_it(tfds_dir, config):
    import tensorflow_datasets as tfds

    directory = tfds_dir / "birds" / config / "1.2.0"
    theirs = [
        (example["image"].numpy(), int(example["label"]))
        for example in tfds.builder_from_directory(str(directory)).as_dataset(
            split="train", decoders={"image": tfds.decode.SkipDecoding()}
        )
    ]
    for data_dir, name in ((tfds_dir, f"birds/{config}"), (directory, "")):
        shards = open_split(DataFlags(str(data_dir), name), "train")
        assert shards.classes == ("owl", "tit", "jay") and shards.fused == (config == "small")
        assert sum(shards.sizes) == 10 and len(shards.sizes) == 3
        parsed = [shards.parse(tf.constant(record)) for record in all_records(shards)]
        assert sorted((p["jpeg"].numpy(), int(p["class_index"])) for p in parsed) == sorted(theirs)
        assert shards.check(0, 0) is None
    part = open_split(DataFlags(str(tfds_dir), f"birds/{config}"), "train[20%:70%]")
    sliced = tfds.builder_from_directory(str(directory)).as_dataset(
        split="train[20%:70%]", decoders={"image": tfds.decode.SkipDecoding()}
    )
    ours = [part.parse(tf.constant(record))["jpeg"].numpy() for record in all_records(part)]
    assert ours == [example["image"].numpy() for example in sliced]


def test_tfds_data_that_is_not_there_is_said_to_be_missing(tfds_dir):
    for name, split, message in [
        (
            "imagenette/320px-v2",
            "train",
            r"not prepared imagenette/320px-v2 in .*tfds\.builder\('im",
        ),
        ("birds/small", "validation", "no split 'validation', only test, train"),
    ]:
        with pytest.raises(UserError, match=message):
            open_split(DataFlags(str(tfds_dir), name), split)


def test_the_configuration_is_tfds_default_or_must_be_named(tfds_dir, tmp_path):
    assert open_split(DataFlags(str(tfds_dir), "birds"), "test").fused
    shutil.copytree(tfds_dir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "birds" / ".config")
    with pytest.raises(UserError, match="--dataset_name=birds/png, --dataset_name=birds/small"):
        open_split(DataFlags(str(tmp_path / "copy"), "birds"), "test")
    small = tmp_path / "copy" / "birds" / "small"
    shutil.copytree(small / "1.2.0", small / "1.10.0")
    shards = open_split(DataFlags(str(tmp_path / "copy"), "birds/small"), "test")
    assert "/1.10.0/" in shards.paths[0]
    described = (small / "1.10.0" / "dataset_info.json").read_text()
    assert '"tfrecord"' in described
    for old, new, message in [
        ('"tfrecord"', '"array_record"', "are array_record, and only tfrecord can be read"),
        ('"name": "birds"', '"name": birds', "cannot read its description"),
    ]:
        (small / "1.10.0" / "dataset_info.json").write_text(described.replace(old, new))
        with pytest.raises(UserError, match=message):
            open_split(DataFlags(str(tmp_path / "copy"), "birds/small"), "test")
    shards = open_split(DataFlags(str(tmp_path / "copy"), "birds/small:1.2.0"), "train")
    with tf.io.TFRecordWriter(shards.paths[0]) as writer:
        writer.write(b"one too many" * shards.sizes[0])
    with pytest.raises(UserError, match=r"has 1 records, and dataset_info\.json beside it says"):
        open_split(DataFlags(str(tmp_path / "copy"), "birds/small:1.2.0"), "train")


def test_made_up_examples_are_a_function_of_their_number(tmp_path):
    data = DataFlags(str(tmp_path / "nothing"), "synthetic")
    shards = open_split(data, "train[:6400]")
    assert shards.num_examples == 6400 and len(shards.classes) == 1000
    records = shards.read(2, 5, 20)
    examples = [shards.parse(tf.constant(record)) for record in records]
    first = shards.first_examples[2] + 5
    assert [int(e["class_index"]) for e in examples] == [(first + i) % 1000 for i in range(20)]
    assert len(set(records)) == 20 and records[7:9] == shards.read(2, 12, 2)
    assert tf.io.decode_jpeg(examples[0]["jpeg"]).shape == (375, 500, 3)
    elsewhere = open_split(data, f"train[{first}:{first + 20}]")
    assert elsewhere.num_examples == 20 and all_records(elsewhere) == records
    assert open_split(data, "validation").num_examples == 50_000
    with pytest.raises(UserError, match="no split 'test'"):
        open_split(data, "test")


def test_a_bucket_is_read_like_a_directory(bucket, slim, tfds_dir):
    for path in sorted(slim.iterdir()):
        files.write_bytes(f"{bucket}/data/{path.name}", path.read_bytes())
    here, there = (open_split(DataFlags(d), "train[2:]") for d in (str(slim), f"{bucket}/data"))
    assert all_records(there) == all_records(here) and there.fingerprint == here.fingerprint
    for path in (tfds_dir / "birds/small").rglob("*.*"):
        if path.is_file():
            name = path.relative_to(tfds_dir)
            files.write_bytes(f"{bucket}/tfds/{name}", path.read_bytes())
    here, there = (
        open_split(DataFlags(str(d), "birds/small"), "train") for d in (tfds_dir, f"{bucket}/tfds")
    )
    assert all_records(there) == all_records(here) and there.classes == here.classes


def test_buffers_are_added_up():
    assert buffer_bytes(64, 16, 110_000, 32, (224, 200)) == (126_720_000, 2 * 32 * 224 * 200 * 3)
    assert memory_note(64, 16, 110_000, 32, (224, 224)) == (
        "buffers take 136 MB: 64 streams x 16 and 128 records of 110 kB = 127 MB, and 2 batches x"
        " 32 images of 224 x 224 = 9.6 MB"
    )
