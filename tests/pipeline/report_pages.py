"""A small run to report on, with hostile names in it, and a reader of the page."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pyarrow as pa
from PIL import Image

from common.labels import LabelNumbering
from pipeline.report import ReportConfig, write_report
from preprocessing import examples, manifest, records, tfrecord

HOSTILE = '<img src="http://evil.example/x" onerror=alert(1)>'
CLASSES = (HOSTILE, "$1 & 'two'", "plain")
COLORS = ((200, 30, 30), (30, 160, 30), (30, 30, 220))
REJECTED = [
    {"key": "plain/a.JPEG", "reason": "truncated", "detail": "no end of image"},
    {"key": "plain/<script>b</script>.JPEG", "reason": "not an image", "detail": ""},
]


def write_split(data_dir, split, per_class):
    """A finished split of one shard with pictures of one colour a class."""
    (data_dir / split).mkdir(parents=True)
    rows, content = [], b""
    for index in np.repeat(np.arange(len(CLASSES)), per_class):
        buffer = io.BytesIO()
        size = (64 + len(rows), 48)
        Image.new("RGB", size, COLORS[index]).save(buffer, "JPEG", quality=95)
        name = f"{len(rows) % per_class}.JPEG"  # The same names in each class.
        head, jpeg, tail = examples.encode_example(
            buffer.getvalue(),
            width=size[0],
            height=size[1],
            class_index=int(index),
            class_name=CLASSES[index],
            class_text=CLASSES[index],
            file_name=name,
        )
        header, footer = tfrecord.frame((head, jpeg, tail))
        record = b"".join((header, head, jpeg, tail, footer))
        rows.append(
            {
                "key": f"c{index}/{name}",
                "label": int(index),
                "offset": len(content),
                "length": len(record),
                "jpeg_offset": len(content) + len(header) + len(head),
                "jpeg_length": len(jpeg),
                "width": size[0],
                "height": size[1],
                "action": "verbatim",
            }
        )
        content += record
    rows.append({"key": "plain/a.JPEG", "label": 2, "offset": -1, "action": "rejected"})
    (data_dir / f"{split}-00000-of-00001").write_bytes(content)
    empty = {field.name: "" if field.type == "string" else 0 for field in records.schema()}
    table = pa.Table.from_pylist([empty | row for row in rows], records.schema())
    records.save_records(str(data_dir), split, [table])
    lines = REJECTED if split == "train" else []
    for file, listed in (("rejected.jsonl", lines), ("repaired.jsonl", [])):
        (data_dir / split / file).write_text("".join(json.dumps(row) + "\n" for row in listed))
    manifest.save_manifest(
        str(data_dir),
        manifest.Manifest(
            split=split,
            num_examples=len(rows) - 1,
            classes=CLASSES,
            class_texts=CLASSES,
            class_list_source="folders",
            class_list_sha256=None,
            labels=LabelNumbering(len(CLASSES), 1),
            stored_input=manifest.STORED_INPUT,
            examples_per_class=(per_class,) * len(CLASSES),
            shards=(
                manifest.ShardInfo(f"{split}-00000-of-00001", len(rows) - 1, len(content), "", ""),
            ),
            num_listed=len(rows),
            num_repaired=0,
            num_resized=0,
            num_duplicates=0,
            rejected={"truncated": 1},
            seed=0,
            source={"kind": "class folders", "name": "photos"},
            flags={},
            versions={},
            records_sha256="",
            plan_sha256="",
        ),
    )
    return manifest.load_manifest(str(data_dir), split).sha256


def write_run(root):
    """Writes a whole small run; returns the flags of a report about it."""
    hashes = {split: write_split(root / "data", split, 4) for split in ("train", "validation")}
    config = {
        "model": {"name": "mobilenet_v9", "width_multiplier": 0.25, "input_shape": [96, 96, 3]},
        "optimization": {"learning_rate": 0.0451, "nested": {"beta": 0.125}},
        "versions": {"tensorflow": "2.99.1"},
        "data_fingerprint": hashes["train"],
        "num_parameters": 218234,
    }
    epochs = [
        {"epoch": 1, "step": 31, "learning_rate": 0.1, "loss": 2.5, "accuracy": 0.25},
        {"epoch": 2, "step": 62, "learning_rate": 0.05, "loss": 1.5, "accuracy": 0.5}
        | {"validation_top_1": 0.625, "validation_top_1_raw": 0.5, "validation_loss": 1.0},
    ]
    evaluation = {
        "top_1": 0.75,
        "top_5": 1.0,
        "loss": 0.2,
        "num_examples": 12,
        "num_correct_top_1": 9,
        "num_correct_top_5": 12,
        "checkpoint": "model/checkpoint-62",
        "weights": "averages",
        "split": "validation",
        "data_manifest_sha256": hashes["validation"],
        "classes": CLASSES,
        "per_class": [{"class": c, "num_examples": 4, "num_correct": 3} for c in CLASSES],
        "confusion": [[3, 1, 0], [0, 3, 1], [1, 0, 3]],
        "mistakes": [
            {"file_name": name, "label": label, "predicted": HOSTILE, "probability": 0.987}
            for name, label in (("c2/1.JPEG", CLASSES[2]), ("2.JPEG", CLASSES[1]), ("z", "lost"))
        ],
    }
    export = {
        "artifacts": [
            {"name": "saved_model", "path": "m", "bytes": 1234567, "sha256": "ab12" * 16}
        ],
        "signatures": {"serving_default": {"inputs": {"images": "float32 [None]"}, "outputs": {}}},
        "parity": {
            "num_images": 16,
            "limit": 1e-5,
            "rows": [
                {"artifact": "good", "largest_probability_difference": 1e-7, "top_1_agreement": 1},
                {"artifact": "off", "largest_probability_difference": 0.03, "top_1_agreement": 0.5},
            ],
        },
    }
    (root / "model").mkdir()
    (root / "export").mkdir()
    history = {"start": {"from": "a pony", "validation_top_1": 0.1}, "epochs": epochs}
    for name, value in (
        ("model/config.json", config),
        ("model/history.json", history),
        ("evaluation.json", evaluation),
        ("export/export.json", export),
    ):
        (root / name).write_text(json.dumps(value))
    (root / "commands.txt").write_text("python -m training.train --model_dir='<a>'\n")
    return {
        "data_dir": str(root / "data"),
        "model_dir": str(root / "model"),
        "evaluation": str(root / "evaluation.json"),
        "export_dir": str(root / "export"),
        "commands": str(root / "commands.txt"),
    }


def report_of(tmp_path, **flags):
    output = tmp_path / "report.html"
    write_report(ReportConfig(output=str(output), **flags))
    return output.read_text(encoding="utf-8")


class Page(html.parser.HTMLParser):
    """What a browser sees: elements with attributes, and the text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(source)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def pictures(self, alt):
        """Decoded pictures whose alternative text is `alt`."""
        for tag, attributes in self.elements:
            if tag == "img" and attributes["alt"] == alt:
                kind, content = attributes["src"].split(",")
                assert kind == "data:image/jpeg;base64"
                yield Image.open(io.BytesIO(base64.b64decode(content)))
