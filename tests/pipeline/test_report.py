"""`python -m pipeline.report`: one self-contained, honest, reproducible page."""

import base64
import html.parser
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from loaders.zoo import load_zoo
from loaders.zoo_plot import draw
from pipeline.report import ReportConfig, write_report
from pipeline.report_sections import accuracy_interval, confused_pairs, describe_history
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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The flags of a report about a whole small run."""
    root = tmp_path_factory.mktemp("run")
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


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return Page(report_of(tmp_path_factory.mktemp("page"), **run))


def test_the_page_fetches_nothing_and_runs_nothing(page):
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "base", "object")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                inside = ("data:image/jpeg;base64,", "data:image/svg+xml;base64,", "#")
                assert value.startswith(inside), (tag, name, value)
            if name not in ("alt", "title"):
                assert "://" not in (value or ""), (tag, name, value)
    (drawing,) = (
        base64.b64decode(attributes["src"].partition(",")[2])
        for tag, attributes in page.elements
        if tag == "img" and attributes["src"].startswith("data:image/svg")
    )
    assert drawing == draw(load_zoo(), "svg") and b"<script" not in drawing
    assert "--paper:" in page.text  # The style sheet is a part of the text.
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_each_id_is_used_once_and_each_reference_has_a_target(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a.get("href", a.get("xlink:href", "")) for _, a in page.elements]
    wanted = {link[1:] for link in links if link.startswith("#")}
    wanted |= {
        match for _, a in page.elements for match in re.findall(r"url\(#(\w+)\)", str(a.values()))
    }
    assert wanted <= set(ids)


def test_hostile_names_are_shown_as_text(page):
    assert HOSTILE in page.text
    assert "$1 & 'two'" in page.text
    assert "plain/<script>b</script>.JPEG" in page.text
    assert "--model_dir='<a>'" in page.text


def test_the_same_inputs_give_the_same_bytes_in_another_process(run, tmp_path):
    here = report_of(tmp_path, **run)
    other = tmp_path / "other.html"
    flags = [f"--{name}={value}" for name, value in run.items()]
    subprocess.run(
        [sys.executable, "-m", "pipeline.report", f"--output={other}", *flags],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"},
    )
    assert other.read_text(encoding="utf-8") == here


def test_every_rejected_file_is_listed_with_its_reason(page):
    for row in REJECTED:
        assert row["key"] in page.text
        assert row["reason"] in page.text
    assert "no end of image" in page.text


def test_samples_are_the_pictures_of_their_class(page):
    for name, color in zip(CLASSES, COLORS, strict=True):
        pictures = list(page.pictures(name))
        assert len(pictures) >= 4
        for picture in pictures:
            assert picture.size == (96, 96)
            assert np.abs(np.asarray(picture, float).mean((0, 1)) - color).max() < 6


def test_a_mistake_is_shown_with_its_picture_labels_and_probability(page):
    shown = {a["title"]: a for _, a in page.elements if "title" in a}
    for name, index in (("c2/1.JPEG", 2), ("2.JPEG", 1)):
        assert shown[name]["alt"] == CLASSES[index]
        picture = Image.open(io.BytesIO(base64.b64decode(shown[name]["src"].split(",")[1])))
        assert np.abs(np.asarray(picture, float).mean((0, 1)) - COLORS[index]).max() < 6
    assert "src" not in shown["z"]
    assert f"is plain taken for {HOSTILE} with 98.7 %" in page.text
    assert "not in this data set is lost taken for" in page.text


def test_figures_of_the_run_are_on_the_page(page):
    for words in (
        "75.0 % 9 of 12 validation images",
        "mobilenet_v9 0.25",
        "218,234",
        "0.0451",
        "nested.beta 0.125",
        "2.99.1",
        "Started from a pony , validation top-1 10.0 %".replace(" ,", ","),
        "1.2 MB",
        "ab12" * 16,
        "✓ passes",
        "✗ over the limit",
        "serving_default",
    ):
        assert words in page.text, words
    assert page.text.count("manifest matches") == 2


def test_an_evaluation_of_other_data_is_pointed_out(run, tmp_path):
    with open(run["evaluation"], encoding="utf-8") as file:
        value = json.load(file) | {"data_manifest_sha256": "0" * 64, "mistakes": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(value))
    flags = run | {"evaluation": str(tmp_path / "evaluation.json")}
    assert "Evaluated on other data than" in Page(report_of(tmp_path, **flags)).text


def test_missing_parts_are_said_in_their_place(run, tmp_path):
    missing = str(tmp_path / "nowhere")
    text = Page(report_of(tmp_path, data_dir=run["data_dir"], export_dir=missing)).text
    assert "--model_dir was not given" in text
    assert "--evaluation was not given" in text
    assert "--commands was not given" in text
    assert f"{missing}/export.json does not exist" in text


def test_sections_without_optional_keys_still_appear(run, tmp_path):
    for name in ("model", "export"):
        (tmp_path / name).mkdir()
    for name in (
        "model/config.json",
        "model/history.json",
        "evaluation.json",
        "export/export.json",
    ):
        (tmp_path / name).write_text("{}")
    text = Page(
        report_of(
            tmp_path,
            data_dir=run["data_dir"],
            model_dir=str(tmp_path / "model"),
            evaluation=str(tmp_path / "evaluation.json"),
            export_dir=str(tmp_path / "export"),
        )
    ).text
    assert "names no epoch yet" in text
    assert "no comparison with the trained model" in text


def test_a_missing_data_set_is_one_clear_line(tmp_path):
    for path, words in ((tmp_path / "no", "does not exist"), (tmp_path, "manifest.json")):
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "pipeline.report",
                f"--data_dir={path}",
                f"--output={tmp_path}/report.html",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert len(result.stderr.strip().splitlines()) == 1
        assert f"--data_dir={path}" in result.stderr
        assert words in result.stderr
    assert os.listdir(tmp_path) == []


def test_damaged_inputs_are_named_and_leave_no_report(run, tmp_path):
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(UserError, match=r"bad\.json"):
        report_of(tmp_path, data_dir=run["data_dir"], evaluation=str(tmp_path / "bad.json"))
    (tmp_path / "names.txt").write_text("plain no tab\n")
    with pytest.raises(UserError, match=r"names\.txt, line 1"):
        report_of(tmp_path, data_dir=run["data_dir"], class_names=str(tmp_path / "names.txt"))
    with pytest.raises(UsageError, match="is a directory"):
        write_report(ReportConfig(data_dir=run["data_dir"], output=str(tmp_path)))
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_record_is_named_by_shard_and_offset(tmp_path):
    write_split(tmp_path / "data", "train", 2)
    shard = tmp_path / "data" / "train-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00000-of-00001 is damaged at byte 0"):
        report_of(tmp_path, data_dir=str(tmp_path / "data"))


def test_many_classes_are_summed_up_instead_of_drawn_one_by_one(run, tmp_path):
    classes = [f"class-{index:02d}" for index in range(45)]
    confusion = np.diag(np.arange(50, 95))
    confusion[12, 34] = 7
    evaluation = {
        "split": "validation",
        "classes": classes,
        "per_class": [
            {"class": name, "num_examples": 100, "num_correct": 50 + index}
            for index, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    flags = {"data_dir": run["data_dir"], "evaluation": str(tmp_path / "evaluation.json")}
    text = Page(report_of(tmp_path, **flags)).text
    assert "Most confused pairs true predicted times of class-12 class-34 7 69" in text
    assert "Weakest classes class right of class-00 50 100 class-01 51 100" in text
    assert "class-19 69 100" in text
    assert "class-20" not in text


def test_human_class_names_stand_for_classes(run, tmp_path):
    (tmp_path / "names.txt").write_text("plain\tPlain <i>pony</i>\n")
    text = Page(report_of(tmp_path, **run, class_names=str(tmp_path / "names.txt"))).text
    assert "Plain <i>pony</i>" in text


def test_the_most_confused_pairs_come_first_and_no_correct_one_is_among_them():
    confusion = np.diag(np.full(50, 9))
    confusion[3, 7], confusion[7, 3], confusion[1, 2] = 5, 6, 1
    pairs = confused_pairs(confusion.tolist(), [f"c{i}" for i in range(50)])
    assert [(pair["label"], pair["predicted"], pair["count"], pair["of"]) for pair in pairs] == [
        ("c7", "c3", 6, 15),
        ("c3", "c7", 5, 14),
        ("c1", "c2", 1, 10),
    ]


def test_the_interval_is_where_wilsons_score_test_would_just_not_reject():
    low, high = accuracy_interval(475, 500)
    for bound in (low, high):
        score = (0.95 - bound) / np.sqrt(bound * (1 - bound) / 500)
        assert abs(score) == pytest.approx(1.959964, rel=1e-6)
    assert accuracy_interval(500, 500)[1] == 1.0
    assert accuracy_interval(None, 500) is None


def test_curves_leave_out_what_an_epoch_did_not_measure():
    rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": float("nan"), "accuracy": 0.5}]
    charts = describe_history({"epochs": rows})["charts"]
    assert [chart["title"] for chart in charts] == ["Accuracy", "Loss"]
    assert [item["name"] for item in charts[0]["legend"]] == ["training"]


def test_another_runs_curve_is_drawn_beside_with_its_start(tmp_path, run):
    other = tmp_path / "model-<b>other"
    other.mkdir()
    rows = [{"epoch": epoch, "validation_top_1": epoch / 10} for epoch in (1, 2, 5)]
    history = {"start": {"from": "a <zebra>", "validation_top_1": 0.07}, "epochs": rows}
    (other / "history.json").write_text(json.dumps(history))
    alone, both = report_of(tmp_path, **run), report_of(tmp_path, compare=str(other), **run)
    assert "a &lt;zebra&gt;" in both and "zebra" not in alone and "<zebra>" not in both
    told = " ".join(both.split())
    assert "top-1 7.0 % before the first step: 10.0 % after epoch 1" in told
    assert "50.0 % after epoch 5" in told
    # One more line of three points.
    lines = [set(re.findall(r'<path d="([^"]*)"', text)) for text in (alone, both)]
    thin = [d for d in lines[1] - lines[0] if d.count("L") == 2 and d.count("M") == 1]
    assert len(thin) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "history.json does not exist"),
        ("[]", "was not written by training.train"),
        ('{"start": {}, "epochs": [{"epoch": 1}]}', "holds no validation top-1"),
    ],
)
def test_a_run_that_cannot_be_compared_is_named(tmp_path, run, content, told):
    if content:
        (tmp_path / "history.json").write_text(content)
    with pytest.raises(UserError, match=told) as error:
        report_of(tmp_path, compare=str(tmp_path), **run)
    assert str(tmp_path) in str(error.value)
