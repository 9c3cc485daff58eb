"""The latency benchmark: its sides run, its figures are what they say."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.latency import (
    KERAS,
    OURS,
    LatencyConfig,
    Side,
    Times,
    measure_latency,
    percentile,
    summarize,
)
from common.command import run_to_exit_code
from common.labels import LabelNumbering
from training.models import ModelRecord, make_config

RESOLUTION = 32


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    """A SavedModel and a LiteRT file of a tiny keras.applications net, as an export has them."""
    import keras
    import tensorflow as tf

    directory = tmp_path_factory.mktemp("export")
    model = keras.applications.MobileNet(
        input_shape=(RESOLUTION, RESOLUTION, 3), alpha=0.25, weights=None, classes=3
    )
    model.export(str(directory / "saved_model"), verbose=False)
    (directory / "litert").mkdir()
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (directory / "litert" / "float32.tflite").write_bytes(content)
    config = make_config(
        "mobilenet_v1",
        width_multiplier=0.25,
        input_shape=(RESOLUTION, RESOLUTION, 3),
        num_classes=3,
    )
    ModelRecord(config, LabelNumbering(3, 0), ("a", "b", "c")).write(str(directory))
    return directory


def run(capfd, **flags):
    words = [f"--{name}={value}" for name, value in flags.items()]
    code = run_to_exit_code(measure_latency, LatencyConfig, argv=["latency", *words])
    sys.stdout.flush()
    return code, *capfd.readouterr()


def test_an_export_and_its_rival_are_timed_in_every_format(export_dir, tmp_path, capfd):
    path = tmp_path / "latency.json"
    code, out, err = run(
        capfd, export_dir=export_dir, threads=1, rounds=3, runs=2, beside=KERAS, json=path
    )
    assert code == 0, err
    figures = json.loads(path.read_text())
    assert [(r["side"], r["artifact"], r["threads"], r["batch"]) for r in figures["rows"]] == [
        (OURS, "saved_model", 1, 1),
        (KERAS, "saved_model", 1, 1),
        (OURS, "litert_float32", 1, 1),
        (KERAS, "litert_float32", 1, 1),
    ]
    for row in figures["rows"]:
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
    assert [(r["artifact"], r["over"]) for r in figures["ratios"]] == [
        ("saved_model", KERAS),
        ("litert_float32", KERAS),
    ]
    assert all(len(r["ratio"]["all"]) == 3 for r in figures["ratios"])
    assert {"processor", "cores", "load", "versions"} <= figures["machine"].keys()
    assert "mobilenet_v1 0.25 at 32x32" in out and "litert_float32" in out


def test_figures_are_those_of_the_times_and_ratios_those_of_the_turns():
    ours, theirs = Side(OURS, "saved_model", 2), Side(KERAS, "saved_model", 2)
    times = {
        ours: Times([0.001, 0.002, 0.003, 0.004, 0.005], [0.002] * 5),
        theirs: Times([0.010] * 5, [0.008] * 5),
    }
    figures = summarize({ours: [1.0, 2.0, 3.0], theirs: [2.0, 2.0, 2.0]}, times, batch_size=4)
    row = figures["rows"][0]
    assert row["median_ms"] == pytest.approx(3)
    assert (row["p10_ms"], row["p90_ms"]) == (pytest.approx(1.4), pytest.approx(4.6))
    assert (row["threads"], row["batch"], row["processor_ms"]) == (2, 4, pytest.approx(2))
    (ratio,) = figures["ratios"]
    assert ratio["ratio"]["all"] == [0.5, 1.0, 1.5]
    assert (ratio["ratio"]["median"], ratio["processor_ratio"]) == (1.0, pytest.approx(0.25))


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_a_percentile_is_numpys(percent):
    values = list(np.random.default_rng(0).uniform(size=37))
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_side_makes_as_many_inferences_as_it_is_asked_for(export_dir, batch):
    path = str(export_dir / "litert" / "float32.tflite")
    done = subprocess.run(
        [sys.executable, "benchmarks/latency_sides.py", "litert", path, "1", str(batch), "-1", "1"],
        input="2\n5\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )
    ready, *answers = done.stdout.splitlines()
    assert ready == "ready"
    assert [[len(times) for times in json.loads(answer)] for answer in answers] == [[2, 2], [5, 5]]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ({"export_dir": "nowhere"}, 2, "--export_dir=nowhere is no directory"),
        ({"formats": "litert_int8"}, 1, "holds no litert_int8"),
        ({"formats": "onnx"}, 2, "--formats knows"),
        ({"threads": "0"}, 2, "--threads takes"),
        ({"rounds": "0"}, 2, "--rounds must be"),
        ({"json": "/"}, 2, "--json=/ is a directory"),
    ],
)
def test_mistakes_are_one_line(export_dir, capfd, flags, code, message):
    got, _, err = run(capfd, **{"export_dir": export_dir, **flags})
    (line,) = err.splitlines()
    assert (got, message in line) == (code, True), line


def test_an_architecture_that_keras_has_not_is_named(export_dir, tmp_path, capfd):
    (tmp_path / "litert").mkdir()
    (tmp_path / "litert" / "float32.tflite").write_bytes(b"x")
    ModelRecord(make_config("mobilenet_edgetpu"), LabelNumbering(1001, 0)).write(str(tmp_path))
    code, _, err = run(capfd, export_dir=tmp_path, beside=KERAS)
    (line,) = err.splitlines()
    assert code == 2 and "keras.applications has no mobilenet_edgetpu" in line


def test_a_file_that_is_no_model_is_one_line(export_dir, tmp_path, capfd):
    (tmp_path / "litert").mkdir()
    (tmp_path / "litert" / "float32.tflite").write_bytes(b"no model at all" * 100)
    ModelRecord.read(str(export_dir)).write(str(tmp_path))
    code, _, err = run(capfd, export_dir=tmp_path)
    (line,) = err.splitlines()
    assert code == 1 and "litert_float32 of ours cannot run: " in line
