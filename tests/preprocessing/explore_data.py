"""Small data sets written by hand, so that the tests of the page need no build."""

import collections
import dataclasses
import hashlib
import io
import pathlib

import numpy as np
import pyarrow as pa
from PIL import Image

from common.labels import LabelNumbering
from preprocessing import layout, manifest, records


@dataclasses.dataclass(frozen=True)
class Picture:
    key: str
    content: bytes
    width: int = 48
    height: int = 32
    action: str = "verbatim"
    reason: str = ""

    @property
    def class_name(self):
        return self.key.split("/")[0]

    @property
    def is_stored(self):
        return self.action != "rejected"


def plain_pictures(number=6, classes=("blue", "red")):
    """Pictures of one colour a class, all of one size."""
    colors = {"red": (220, 30, 30), "blue": (30, 30, 220)}
    for index in range(number):
        name = classes[index % len(classes)]
        out = io.BytesIO()
        Image.new("RGB", (48, 32), colors[name]).save(out, "JPEG", comment=str(index).encode())
        yield Picture(f"{name}/{index}.JPEG", out.getvalue())


def write_split(data_dir, split, pictures, *, num_shards=2, classes=None, texts=None, **changes):
    """Shards that are the stored pictures one after the other, their table and the manifest."""
    classes = classes or sorted({picture.class_name for picture in pictures})
    pathlib.Path(data_dir, split).mkdir(parents=True)
    shards, tables = [], []
    for index in range(num_shards):
        start, end = (len(pictures) * number // num_shards for number in (index, index + 1))
        mine = pictures[start:end]
        body, rows = b"", []
        for picture in mine:
            place = (len(body), len(picture.content)) if picture.is_stored else (-1, 0)
            rows.append(
                {
                    "key": picture.key,
                    "sha256": hashlib.sha256(picture.content).hexdigest(),
                    "label": classes.index(picture.class_name),
                    "class": picture.class_name,
                    "shard": index,
                    "offset": place[0],
                    "length": place[1],
                    "jpeg_offset": place[0],
                    "jpeg_length": place[1],
                    "width": picture.width,
                    "height": picture.height,
                    "action": picture.action,
                    "reason": picture.reason,
                    "source": picture.key,
                    "source_offset": -1,
                }
            )
            body += picture.content if picture.is_stored else b""
        tables.append(pa.Table.from_pylist(rows, records.schema()))
        name = layout.shard_name(split, index, num_shards)
        pathlib.Path(data_dir, name).write_bytes(body)
        stored = sum(picture.is_stored for picture in mine)
        shards.append(manifest.ShardInfo(name, stored, len(body), "ab" * 32, "AAAAAA=="))
    write_tables(data_dir, split, tables, shards, classes, texts, **changes)


def write_tables(data_dir, split, tables, shards, classes, texts=None, **changes):
    """The table and a manifest that fits it."""
    pathlib.Path(data_dir, split).mkdir(parents=True, exist_ok=True)
    records.save_records(str(data_dir), split, tables)
    table = pa.concat_tables(tables).select(["label", "action", "reason"])
    actions = table["action"].to_pylist()
    labels = np.array(table["label"])[np.array(actions) != "rejected"]
    pairs = zip(actions, table["reason"].to_pylist(), strict=True)
    rejected = collections.Counter(reason for action, reason in pairs if action == "rejected")
    values = {
        "split": split,
        "num_examples": len(labels),
        "classes": tuple(classes),
        "class_texts": tuple(texts or classes),
        "class_list_source": "folders",
        "class_list_sha256": None,
        "labels": LabelNumbering(len(classes), 1),
        "stored_input": manifest.STORED_INPUT,
        "examples_per_class": tuple(np.bincount(labels, minlength=len(classes)).tolist()),
        "shards": tuple(shards),
        "num_listed": len(actions),
        "num_repaired": actions.count("repaired"),
        "num_resized": actions.count("resized"),
        "num_duplicates": 0,
        "rejected": dict(rejected),
        "seed": 7,
        "source": {"kind": "class folders", "name": "photos"},
        "flags": {"seed": 7, "num_shards": len(shards), "shorter_side": 0},
        "versions": {"pillow": "99.1"},
        "records_sha256": "cd" * 32,
        "plan_sha256": "ef" * 32,
    }
    manifest.save_manifest(str(data_dir), manifest.Manifest(**values | changes))


def write_many_rows(data_dir, number, jpegs, *, num_shards=64, num_classes=1000):
    """A split of very many rows, whose pictures are the same few places in its shards."""
    rng = np.random.default_rng(number)
    pathlib.Path(data_dir).mkdir()
    body = b"".join(jpegs)
    lengths = np.array([len(jpeg) for jpeg in jpegs])
    which = rng.integers(0, len(jpegs), number)
    offsets = (np.cumsum(lengths) - lengths)[which]
    label = rng.integers(0, num_classes, number)
    names = [f"n{index:08d}" for index in range(num_classes)]
    columns = {
        "key": [f"{names[at]}/{names[at]}_{row}.JPEG" for row, at in enumerate(label)],
        "sha256": [hashlib.sha256(b"%d" % row).hexdigest() for row in range(number)],
        "label": label,
        "class": [names[at] for at in label],
        "shard": np.arange(number) * num_shards // number,
        "offset": offsets,
        "length": lengths[which],
        "jpeg_offset": offsets,
        "jpeg_length": lengths[which],
        "width": np.exp(rng.normal(6, 0.4, number)),
        "height": np.exp(rng.normal(6, 0.4, number)),
        "action": ["verbatim"] * number,
        "reason": [""] * number,
        "source": [""] * number,
        "source_offset": np.full(number, -1),
    }
    table = pa.table(
        {
            field.name: pa.array(columns[field.name]).cast(field.type, safe=False)
            for field in records.schema()
        }
    )
    tables, shards = [], []
    for index in range(num_shards):
        start, end = (-(-number * n // num_shards) for n in (index, index + 1))
        tables.append(table.slice(start, end - start))
        name = layout.shard_name("train", index, num_shards)
        pathlib.Path(data_dir, name).write_bytes(body)
        shards.append(manifest.ShardInfo(name, end - start, len(body), "ab" * 32, "AAAAAA=="))
    write_tables(data_dir, "train", tables, shards, names)
