"""`MODEL_CARD.md`: its code runs, its figures are the manifest's, nothing breaks out of it."""

import copy
import dataclasses
import json
import re
import subprocess
import sys

import pytest

from pipeline.formats.model_card import model_card
from training.models import ModelRecord

from .conftest import CLASSES, draw_photo, weights_in


@pytest.fixture(scope="module")
def summary(good_export) -> dict:
    return json.loads((good_export / "export.json").read_text())


@pytest.fixture(scope="module")
def record(good_export) -> ModelRecord:
    return ModelRecord.read(str(good_export))


def test_the_code_on_the_card_runs_in_the_export(good_export, tmp_path):
    card = (good_export / "MODEL_CARD.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3  # SavedModel, the preparation of a photo, LiteRT
    for part in good_export.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "photo.jpg").write_bytes(draw_photo(1, (4, 4)))
    process = subprocess.run(
        [sys.executable, "-I", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    answers = [line.split()[0] for line in process.stdout.splitlines()]
    assert len(answers) == 2 and set(answers) <= set(CLASSES)


def test_the_card_says_what_the_manifest_says(good_export, summary):
    card = (good_export / "MODEL_CARD.md").read_text()
    for artifact in summary["artifacts"]:
        row = f"| `{artifact['path']}` | `{artifact['format']}` | {artifact['bytes']:,} |"
        assert row in card
    assert summary["data_manifest_sha256"] in card
    assert "None were given" in card
    assert "32 x 32 pixels" in card
    assert "moving averages" in card
    weights = weights_in(str(good_export / "checkpoint" / "ckpt-0"), "model")
    trained = sum(value.size for name, value in weights.items() if ".moving_" not in name)
    assert f"| parameters | {trained:,} |" in card


def test_metrics_with_their_interval(record, summary):
    metrics = {"top_1": 0.75, "top_5": 1.0, "loss": 0.5, "num_examples": 2000}
    metrics["interval_95"] = [0.731, 0.768]
    card = model_card(record, {**summary, "metrics": metrics})
    assert "| on 2,000 photos | |" in card  # an old evaluation, which does not say where they are
    assert "| top-1 | 75.00% (95 % interval 73.1% to 76.8%) |" in card
    assert "| top-5 | 100.00% |" in card
    assert "| loss | 0.5000 |" in card
    assert "None were given" not in card


def test_metrics_say_what_they_were_measured_on(record, summary):
    metrics = {"top_1": 0.75, "top_5": 1.0, "loss": 0.5, "num_examples": 20, "split": "te|st"}
    metrics["data_manifest_sha256"] = summary["data_manifest_sha256"]
    card = model_card(record, {**summary, "metrics": metrics})
    assert r"| on 20 photos of the split `te\|st` | |" in card
    assert card.count(summary["data_manifest_sha256"]) == 1
    metrics["data_manifest_sha256"] = "0123abcd"
    assert "| data | manifest `0123abcd` |" in model_card(record, {**summary, "metrics": metrics})


def test_a_loss_that_is_not_finite(record, summary):
    metrics = {"top_1": 0.0, "top_5": 0.5, "loss": None, "num_examples": 2}
    card = model_card(record, {**summary, "metrics": metrics})
    assert "| loss | none: it is not finite |" in card


HOSTILE = (
    "<script>alert(1)</script>",
    "two\n# lines",
    "`tick` | ``two`` ![x](javascript:1)",
)


def test_no_name_breaks_out_of_its_line(record, summary):
    changed = copy.deepcopy(summary)
    changed["exported_from"] = "/runs/<b>|x`\n/ckpt<i>|`"
    changed["artifacts"][0]["notes"] = "<u>note</u> | [a](b)"
    plain = model_card(record, summary)
    card = model_card(dataclasses.replace(record, classes=HOSTILE), changed)
    assert len(card.splitlines()) == len(plain.splitlines())
    # What is left of the names outside of code spans is escaped.
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", card)
    for markup in ("<script", "<i>", "javascript"):
        assert markup in card
        assert markup not in outside
    assert r"\<u\>note\</u\> \| \[a\](b)" in outside
    assert [line for line in card.splitlines() if line.startswith("# ")] == [plain.splitlines()[0]]
