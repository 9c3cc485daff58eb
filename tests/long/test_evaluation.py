"""Real weights are right on the photos that the reference counts say, in every format."""

import json
import subprocess
import sys

import pytest

from tests.pipeline.conftest import real_data, start  # noqa: F401 -- a fixture

pytestmark = pytest.mark.long

COUNTS = {
    "mobilenet_v1_0.25_128": (128, 229, 358),
    "mobilenet_v1_0.75_224": (224, 417, 486),
    "dq_mobilenet_v2_1.0_224": (224, 424, 488),
    "dq_mobilenet_v3_small_1.0_224": (224, 363, 461),
    "dq_mobilenet_edgetpu_0.75_224": (224, 419, 484),
}
# V1 is quantised so coarsely that ten photos have two best answers: which is the first depends on
# the last bit of a kernel.
COUNTS_OF_8_BITS = {
    "mobilenet_v1_0.25_128_quant": (222, 339, 5),
    "mobilenet_v2_1.0_224_quant": (429, 488, 1),
    "mobilenet_v3_small_1.0_224_quant": (375, 463, 1),
}


def evaluated(tmp_path, **flags) -> dict:
    output = tmp_path / "evaluation.json"
    assert start("evaluate", output=output, diagnose="never", **flags) == 0
    return json.loads(output.read_text())


@pytest.mark.parametrize("name", COUNTS)
def test_every_format_of_real_weights(reference_data, real_data, tmp_path, name):  # noqa: F811
    resolution, top_1, top_5 = COUNTS[name]
    prefix = reference_data / "tf1_checkpoints" / name
    of_tf1 = {"checkpoint_path": prefix, "resolution": resolution, "data_dir": real_data}
    assert start("export", export_dir=tmp_path / "export", **of_tf1) == 0
    values = {"tf1": evaluated(tmp_path, **of_tf1)}
    for place, kind in (
        ("checkpoint", "checkpoint"),
        ("saved_model", "saved_model"),
        ("litert/float32.tflite", "litert"),
    ):
        path = tmp_path / "export" / place
        values[kind] = evaluated(tmp_path, checkpoint_path=path, data_dir=real_data)
    for kind, value in values.items():
        assert (value["format"], value["num_examples"]) == (kind, 500)
        assert abs(value["num_correct_top_1"] - top_1) <= 1, kind
        assert abs(value["num_correct_top_5"] - top_5) <= 4, kind
        assert value["loss"] == pytest.approx(values["tf1"]["loss"], rel=1e-4)


@pytest.mark.parametrize("name", COUNTS_OF_8_BITS)
def test_the_released_8_bit_files(reference_data, real_data, tmp_path, name):  # noqa: F811
    top_1, top_5, tolerance = COUNTS_OF_8_BITS[name]
    path = reference_data / "tflite" / f"{name}.tflite"
    value = evaluated(tmp_path, checkpoint_path=path, data_dir=real_data)
    assert abs(value["num_correct_top_1"] - top_1) <= tolerance
    assert abs(value["num_correct_top_5"] - top_5) <= 4


def test_two_workers_count_as_one_does(reference_data, real_data, tmp_path):  # noqa: F811
    flags = {
        "checkpoint_path": reference_data / "tf1_checkpoints" / "mobilenet_v1_0.25_128",
        "resolution": 128,
        "data_dir": real_data,
        "split": "validation[:333]",
    }
    alone = evaluated(tmp_path, **flags)
    words = [f"--{name}={value}" for name, value in flags.items()]
    launcher = ["training.launch", "--num_workers=2", "--module=pipeline.evaluate", "--"]
    output = tmp_path / "workers.json"
    subprocess.run(
        [sys.executable, "-m", *launcher, f"--output={output}", "--diagnose=never", *words],
        check=True,
        timeout=600,
    )
    shared = json.loads(output.read_text())
    for key in ("num_examples", "num_correct_top_1", "num_correct_top_5", "per_class", "diagnosis"):
        assert shared[key] == alone[key]
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert [m["example"] for m in shared["mistakes"]] == [m["example"] for m in alone["mistakes"]]
