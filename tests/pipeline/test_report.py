"""`python -m pipeline.report`: one self-contained, honest, reproducible page."""

import base64
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.errors import UsageError, UserError
from pipeline.report import ReportConfig, write_report
from pipeline.reporting.evaluation import accuracy_interval, confused_pairs
from pipeline.reporting.training import describe_history
from tests.pipeline.report_pages import (
    CLASSES,
    COLORS,
    HOSTILE,
    REJECTED,
    Page,
    report_of,
    write_run,
    write_split,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return Page(report_of(tmp_path_factory.mktemp("page"), **run))


def test_the_page_fetches_nothing_and_runs_nothing(page):
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "base", "object")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value)
            if name not in ("alt", "title"):
                assert "://" not in (value or ""), (tag, name, value)
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
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
