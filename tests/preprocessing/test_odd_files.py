"""Every bad and odd file ends as the tables in `odd_files` say."""

import os

import pytest
import tensorflow as tf

from preprocessing import images
from preprocessing.images import DECODE, HEADER, ImagePolicy, inspect
from preprocessing.manifest import load_manifest

from .odd_files import REJECTED, REJECTED_IF_DECODED, REPAIRED, VERBATIM


def expected(validate: str) -> dict[str, tuple[bytes, str, str]]:
    """Content, action and reason of every file."""
    rows = {name: (content, "verbatim", "") for name, content in VERBATIM.items()}
    rows |= {name: (content, "repaired", why) for name, (content, why) in REPAIRED.items()}
    rows |= {name: (content, "rejected", why) for name, (content, why) in REJECTED.items()}
    doubtful = ("rejected", "damaged") if validate == DECODE else ("verbatim", "")
    rows |= {name: (content, *doubtful) for name, content in REJECTED_IF_DECODED.items()}
    return rows


def size_of(jpeg: bytes) -> tuple[int, int]:
    """As TensorFlow decodes it."""
    height, width, _ = tf.io.decode_jpeg(jpeg, channels=3).shape
    return width, height


def rows(validate: str):
    for name, row in expected(validate).items():
        yield pytest.param(validate, *row, id=f"{validate}: {ascii(name)[1:40]}")


@pytest.mark.parametrize("validate, content, action, reason", [*rows(HEADER), *rows(DECODE)])
@pytest.mark.filterwarnings("error")
def test_every_file_ends_as_expected(validate, content, action, reason):
    found = inspect(content, ImagePolicy(validate=validate))
    assert (found.action, found.reason) == (action, reason), found.detail
    if action == "rejected":
        assert reason in images.REJECTION_REASONS
        assert found.detail and found.detail.isprintable() and not found.content
        assert " at 0x" not in found.detail, "the same words in every run"
    elif action == "verbatim":
        assert found.content is content and found.detail == ""
    else:
        assert inspect(content).content == found.content != content
    if action != "rejected":
        assert size_of(found.content) == (found.width, found.height)


@pytest.mark.parametrize("shorter_side", [8, 32])
def test_an_odd_file_is_made_smaller_as_any_other(shorter_side):
    policy = ImagePolicy(shorter_side=shorter_side)
    resized = 0
    for name, (content, action, reason) in expected(HEADER).items():
        if action == "rejected" or name in REJECTED_IF_DECODED:
            continue
        found = inspect(content, policy)
        before = inspect(content)
        if min(before.width, before.height) <= shorter_side:
            assert found == before, name
            continue
        resized += 1
        assert (found.action, found.reason) == ("resized", reason), name
        assert min(found.width, found.height) == shorter_side, name
        assert size_of(found.content) == (found.width, found.height), name
    assert resized > 50 if shorter_side == 8 else resized == 0


def test_the_table_is_large_enough_and_files_are_told_apart():
    table = expected(HEADER)
    assert len(table) >= 60
    assert len(table) == sum(map(len, (VERBATIM, REPAIRED, REJECTED, REJECTED_IF_DECODED)))
    assert {reason for _, _, reason in table.values() if reason in images.REJECTION_REASONS} == (
        set(images.REJECTION_REASONS) - {images.UNREADABLE}
    )


@pytest.mark.parametrize("validate", [HEADER, DECODE])
def test_a_build_of_all_of_them_finishes_and_accounts_for_each(validate, tmp_path, build):
    folder = tmp_path / "photos" / "fox"
    folder.mkdir(parents=True)
    table = expected(validate)
    for name, (content, _, _) in table.items():
        (folder / name).write_bytes(content)
    photo = (folder / "plain.JPEG").read_bytes()
    (tmp_path / "elsewhere").write_bytes(photo)
    (folder / "link.JPEG").symlink_to(tmp_path / "elsewhere")
    (folder / "dangling.JPEG").symlink_to(tmp_path / "nowhere")
    (folder / "loop.JPEG").symlink_to(folder / "loop.JPEG")
    (folder / "directory.JPEG").mkdir()
    (folder / "directory.JPEG" / "within.JPEG").write_bytes(photo)
    (folder / ".hidden.JPEG").write_bytes(photo)
    table |= {
        "link.JPEG": (photo, "verbatim", ""),
        "dangling.JPEG": (b"", "rejected", "unreadable"),
        "loop.JPEG": (b"", "rejected", "unreadable"),
    }

    flags = {"validate": validate, "num_shards": 5, "max_rejected_fraction": 0.9}
    data_dir = build(tmp_path / "photos", tmp_path / "out", **flags)

    accounted = {row["key"]: row for row in read_table(data_dir / "train/records.parquet")}
    ends = {key: (row["action"], row["reason"]) for key, row in accounted.items()}
    assert ends == {f"fox/{as_text(name)}": row[1:] for name, row in table.items()}
    manifest = load_manifest(str(data_dir), "train")
    num_stored = sum(action != "rejected" for _, action, _ in table.values())
    assert (manifest.num_listed, manifest.num_examples) == (len(table), num_stored)

    stored = {
        as_text(os.fsdecode(read["file_name"].numpy())): read["image/encoded"].numpy()
        for read in read_records(data_dir)
    }
    assert len(stored) == num_stored
    for name, (content, action, _) in table.items():
        if action == "rejected":
            assert as_text(name) not in stored
            continue
        jpeg, row = stored[as_text(name)], accounted[f"fox/{as_text(name)}"]
        assert size_of(jpeg) == (row["width"], row["height"]), name
        assert (jpeg == content) == (action == "verbatim"), name


def as_text(name: str) -> str:
    """How a table of text shows a file name that need not be text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_table(path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def read_records(data_dir):
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "file_name": tf.io.FixedLenFeature([], tf.string),
    }
    paths = sorted(str(path) for path in data_dir.glob("train-*"))
    for record in tf.data.TFRecordDataset(paths):
        yield tf.io.parse_single_example(record, spec)
