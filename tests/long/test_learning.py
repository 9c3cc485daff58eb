"""Models learn: the demo's things from scratch, and photos from released weights."""

import csv
import dataclasses
import os

import pytest

from preprocessing.demo_photos import DemoConfig, draw_photos
from tests.training.conftest import build
from tests.training.distribution import train_here
from tests.training.runs import flags_of, history_of
from training.config import AugmentationFlags, OptimizationFlags

pytestmark = pytest.mark.long

NUM_CLASSES = 40


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("demo")
    draw_photos(DemoConfig(str(root / "photos")))
    for split in ("train", "validation"):
        source, output = root / "photos" / split, root / "data"
        build(source, output, split=split, num_shards=4, max_rejected_fraction=0.05)
    return str(root / "data")


def test_a_small_v3_learns_the_demo_from_scratch(demo, tmp_path):
    groups = flags_of(
        demo,
        tmp_path,
        model={
            "model_name": "mobilenet_v3_small",
            "width_multiplier": 0.5,
            "resolution": 64,
            "dropout_rate": 0.0,
            "batch_norm_decay": 0.9,
            "truncated_normal_stddev": 0.09,
        },
        data={"eval_split": "validation"},
        run={"checkpoint_every_steps": 10_000, "steps_per_call": 50, "eval_every_epochs": 6},
    )
    optimization = OptimizationFlags(
        batch_size=32,
        epochs=24,
        op_epsilon=1e-4,
        lr=0.002,
        learning_scheduler_name="cosine",
        warmup_epochs=1.0,
        ma_decay_rate=0.98,
    )
    groups = (*groups[:2], AugmentationFlags(min_crop_area=0.3), optimization, *groups[4:])
    train_here(groups)
    assert history_of(tmp_path)["epochs"][-1]["validation_top_1"] >= 0.9


def test_fine_tuning_starts_at_the_accuracy_of_released_weights_and_does_not_fall(
    reference_data, tmp_path
):
    """Of these photos the TF1 graph with these weights gets as many right as its table says."""
    name = "mobilenet_v1_0.25_128"
    photos = tmp_path / "photos"
    photos.mkdir()
    for folder in sorted(os.listdir(reference_data / "imagenet_sample"))[:NUM_CLASSES]:
        (photos / folder).symlink_to(reference_data / "imagenet_sample" / folder)
    data = build(photos, tmp_path / "data", num_shards=2)
    groups = flags_of(
        data,
        tmp_path / "run",
        model={"resolution": 128, "batch_norm_decay": 0.99},
        optimization={"batch_size": 20, "epochs": 10, "lr": 1e-4, "ma_decay_rate": 0.9},
        run={"init_checkpoint": str(reference_data / "tf1_checkpoints" / name)},
    )
    groups = (*groups[:2], dataclasses.replace(groups[2], min_crop_area=0.5), *groups[3:])
    train_here(groups)
    history = history_of(tmp_path / "run")
    start = history["start"]["validation_top_1"] * NUM_CLASSES
    assert abs(start - right_of_the_graph(reference_data, name, photos)) <= 1
    reached = [row["validation_top_1"] * NUM_CLASSES for row in history["epochs"]]
    assert min(reached) >= start - 0.5


def right_of_the_graph(reference_data, name, photos) -> int:
    """How many of the photos the TF1 graph gets right."""
    with open(reference_data / "predictions" / f"{name}.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (photos / row["path"]).exists()]
    assert len(rows) == NUM_CLASSES
    return sum(row["label"] == row["top1"] for row in rows)
