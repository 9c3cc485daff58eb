"""What a training run is told: dataclasses that become the flags of `training.train`.

Flag names are those of the TF1 and TF2 MobileNet trainers where these had one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from common.command import flag
from common.errors import UsageError
from training.models.configs import MobileNetConfig, make_config, model_names

OPTIMIZERS = ("rmsprop", "momentum", "sgd")
SCHEDULES = ("exponential", "cosine", "constant")


@dataclasses.dataclass(frozen=True)
class ModelFlags:
    """Which model is trained."""

    model_name: str = flag("mobilenet_v1", help="architecture", choices=model_names())
    width_multiplier: float = flag(1.0, help="scales the channels of every layer")
    resolution: int = flag(224, help="height and width of the input in pixels")
    num_classes: int | None = flag(
        None, help="logits; by default the classes of the data, or those of --init_checkpoint"
    )
    dropout_rate: float | None = flag(
        None, help="part of the features dropped before the logits; the model's own by default"
    )
    batch_norm_decay: float | None = flag(
        None, help="decay of the moving mean and variance; the model's own by default"
    )
    std_weight_decay: float | None = flag(
        None,
        help="L2 factor w of the loss w / 2 * sum(kernel^2), on ordinary convolutions only; the"
        " model's own by default",
    )
    truncated_normal_stddev: float | None = flag(
        None, help="spread of the initial kernels; the model's own by default"
    )

    def config(self, num_classes: int) -> MobileNetConfig:
        """The model's configuration, with logits as output."""
        return make_config(
            self.model_name,
            num_classes=num_classes,
            input_shape=(self.resolution, self.resolution, 3),
            width_multiplier=self.width_multiplier,
            dropout_rate=self.dropout_rate,
            batch_norm_decay=self.batch_norm_decay,
            weight_decay=self.std_weight_decay,
            stddev=self.truncated_normal_stddev,
        ).replace(classifier_activation=None)


@dataclasses.dataclass(frozen=True)
class DataFlags:
    """What it is trained on, and how a photo becomes an input."""

    data_dir: str = flag(help="directory of shards that preprocessing.build_dataset wrote")
    dataset_name: str = flag("imagenet2012", help="what reports call the data set")
    train_split: str = flag("train", help="split to train on")
    eval_split: str = flag("validation", help="split to evaluate on; empty for none")
    augmentation: str = flag(
        "inception", help="random crop, flip and colour, or none", choices=("inception", "none")
    )
    min_crop_area: float = flag(0.05, help="smallest part of a photo that a crop may have")
    input_range: tuple[float, ...] = flag(
        (-1.0, 1.0), help="value of a black and of a white pixel; TF1 weights need -1,1"
    )

    def __post_init__(self):
        if len(self.input_range) != 2 or self.input_range[0] >= self.input_range[1]:
            raise UsageError(f"--input_range must be LOW,HIGH, not {self.input_range}")


@dataclasses.dataclass(frozen=True)
class OptimizationFlags:
    """How it is trained."""

    batch_size: int = flag(64, help="examples a step, over all replicas")
    epochs: int = flag(30, help="times that every example is seen")
    optimizer_name: str = flag("rmsprop", help="rule of the update", choices=OPTIMIZERS)
    op_momentum: float = flag(0.9, help="momentum")
    op_decay_rate: float = flag(0.9, help="rmsprop: decay of the mean of squared gradients")
    op_epsilon: float = flag(1.0, help="rmsprop: added to that mean, inside the square root")
    learning_scheduler_name: str = flag(
        "exponential", help="how the learning rate falls", choices=SCHEDULES
    )
    lr: float = flag(0.045, help="learning rate after the warm-up")
    lr_decay_rate: float = flag(0.94, help="exponential: factor at each decay")
    lr_decay_epochs: float = flag(2.5, help="exponential: epochs from one decay to the next")
    warmup_epochs: float = flag(0.0, help="epochs in which the rate rises from 0")
    label_smoothing: float = flag(0.0, help="part of the target spread over all classes")
    ma_decay_rate: float = flag(
        0.9999, help="decay of the moving averages that are evaluated and exported; 0 for none"
    )

    def __post_init__(self):
        for name, rule, holds in (
            ("batch_size", "at least 1", self.batch_size >= 1),
            ("epochs", "at least 1", self.epochs >= 1),
            ("lr", "above 0", self.lr > 0),
            ("lr_decay_rate", "in (0, 1]", 0 < self.lr_decay_rate <= 1),
            ("lr_decay_epochs", "above 0", self.lr_decay_epochs > 0),
            ("warmup_epochs", "at least 0", self.warmup_epochs >= 0),
            ("op_momentum", "at least 0 and below 1", 0 <= self.op_momentum < 1),
            ("op_decay_rate", "at least 0 and below 1", 0 <= self.op_decay_rate < 1),
            ("op_epsilon", "above 0", self.op_epsilon > 0),
            ("label_smoothing", "at least 0 and below 1", 0 <= self.label_smoothing < 1),
            ("ma_decay_rate", "at least 0 and below 1", 0 <= self.ma_decay_rate < 1),
        ):
            if not holds:
                raise UsageError(f"--{name} must be {rule}, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Where the run lives, where it starts and how often it saves."""

    model_dir: str = flag(help="directory of checkpoints, history and logs")
    init_checkpoint: str = flag(
        "", help="TF1 checkpoint, or directory of a TF2 one, to start from; empty for random"
    )
    init_weights: str = flag(
        "averages", help="which of its weights to start from", choices=("averages", "raw")
    )
    init_logits: str = flag(
        "auto",
        help="its logits: auto keeps them where their number fits and its class list, if it names"
        " one, is the data's; TF1 checkpoints name none",
        choices=("auto", "keep", "drop"),
    )
    seed: int = flag(0, help="seed of initial weights, order and augmentation")
    checkpoint_every_steps: int = flag(500, help="steps between checkpoints, besides epoch ends")
    keep_checkpoints: int = flag(3, help="newest checkpoints that are kept")
    eval_every_epochs: int = flag(1, help="epochs between evaluations; the last is evaluated too")
    steps_per_call: int = flag(20, help="steps that run without a return to Python")
    allow_changes: bool = flag(False, help="resume although settings have changed")

    def __post_init__(self):
        for name in (
            "checkpoint_every_steps",
            "keep_checkpoints",
            "eval_every_epochs",
            "steps_per_call",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be at least 0 and below 2**32, not {self.seed}")


def settings_that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings by which a run's result is fixed; a run is resumed only under the same.

    How long it is, and how often it saves and evaluates, may change.
    """
    return {
        f"{group}.{name}": value
        for group in ("model", "data", "optimization")
        for name, value in settings[group].items()
        if (group, name) not in {("optimization", "epochs"), ("data", "data_dir")}
    } | {
        "run.seed": settings["run"]["seed"],
        "run.init_checkpoint": settings["run"]["init_checkpoint"],
        "run.init_weights": settings["run"]["init_weights"],
        "run.init_logits": settings["run"]["init_logits"],
        "data_manifest_sha256": settings["data_manifest_sha256"],
    }
