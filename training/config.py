"""What a training run is told: dataclasses that become the flags of `training.train`.

Flag names are those of the TF1 and TF2 MobileNet trainers where these had one.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

from common import files
from common.command import flag
from common.errors import UsageError
from training.models.configs import MobileNetConfig, make_config, model_names

OPTIMIZERS = ("rmsprop", "momentum", "sgd", "adam", "adamw", "lamb")
SCHEDULES = ("exponential", "cosine", "stepwise", "constant")
AUGMENTATIONS = ("inception", "inception_full", "randaugment", "autoaugment", "none")
EVAL_PREPROCESSINGS = ("inception", "bicubic")
STRATEGIES = ("auto", "default", "mirrored", "multi_worker", "tpu")
PRECISIONS = ("float32", "bfloat16", "float16")


def _require(flags: Any, *rules: tuple[str, str, bool]) -> None:
    """Makes sure that every (flag, rule, whether it holds) holds.

    Raises:
        UsageError: it names the first flag that does not.
    """
    for name, rule, holds in rules:
        if not holds:
            raise UsageError(f"--{name} must be {rule}, not {getattr(flags, name)}")


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
    """What it is trained on, and in which order."""

    data_dir: str = flag(
        help="directory of shards: our own, the classic ImageNet ones of tf-slim and TPU, or TFDS'"
    )
    dataset_name: str = flag(
        "",
        help="which TFDS data set below --data_dir (imagenette, imagenet2012, ...), or synthetic"
        " for made-up images; empty for what lies in --data_dir itself",
    )
    train_split: str = flag("train", help="split to train on; a part as in train[:98%]")
    eval_split: str = flag(
        "validation", help="split to evaluate on, for example train[98%:]; empty for none"
    )
    skip_corrupt_records: int = flag(0, help="damaged records that are passed over, and logged")
    num_streams: int = flag(64, help="streams that an epoch is dealt to; part of the order")
    shuffle_window: int = flag(16, help="records shuffled among each other within a stream")

    def __post_init__(self):
        _require(
            self,
            ("skip_corrupt_records", "at least 0", self.skip_corrupt_records >= 0),
            ("num_streams", "at least 1", self.num_streams >= 1),
            ("shuffle_window", "at least 1", self.shuffle_window >= 1),
        )


@dataclasses.dataclass(frozen=True)
class AugmentationFlags:
    """How a photo becomes an input, in training and in evaluation."""

    augmentation: str = flag(
        "inception",
        help="inception: random crop, flip, brightness and saturation; inception_full: hue and"
        " contrast too; randaugment, autoaugment: crop, flip and their policies; none: the whole"
        " photo",
        choices=AUGMENTATIONS,
    )
    min_crop_area: float = flag(0.05, help="smallest part of a photo that a crop may have")
    randaugment_layers: int = flag(2, help="randaugment: transforms applied to each image")
    randaugment_magnitude: float = flag(9.0, help="randaugment: their strength, 0 to 10")
    mixup_alpha: float = flag(0.0, help="mixup: both parameters of the beta distribution; 0: none")
    cutmix_alpha: float = flag(0.0, help="cutmix: likewise; with both, each is used half the time")
    random_erasing: float = flag(0.0, help="probability that a random box is filled with noise")
    eval_preprocessing: str = flag(
        "inception",
        help="inception: central 87.5 %, then bilinear, as TF1 models need it; bicubic: shorter"
        " side to size / 0.875, then the centre",
        choices=EVAL_PREPROCESSINGS,
    )
    input_range: tuple[float, ...] = flag(
        (-1.0, 1.0), help="value of a black and of a white pixel; TF1 weights need -1,1"
    )

    def __post_init__(self):
        if len(self.input_range) != 2 or self.input_range[0] >= self.input_range[1]:
            raise UsageError(f"--input_range must be LOW,HIGH, not {self.input_range}")
        _require(
            self,
            ("min_crop_area", "in (0, 1]", 0 < self.min_crop_area <= 1),
            ("randaugment_layers", "at least 1", self.randaugment_layers >= 1),
            ("randaugment_magnitude", "in [0, 10]", 0 <= self.randaugment_magnitude <= 10),
            ("mixup_alpha", "at least 0", self.mixup_alpha >= 0),
            ("cutmix_alpha", "at least 0", self.cutmix_alpha >= 0),
            ("random_erasing", "in [0, 1]", 0 <= self.random_erasing <= 1),
        )

    @property
    def mixes(self) -> bool:
        """Whether neighbours of a batch are mixed with each other."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


@dataclasses.dataclass(frozen=True)
class OptimizationFlags:
    """How it is trained."""

    batch_size: int = flag(64, help="examples a step, over all replicas (the global batch)")
    epochs: int = flag(30, help="times that every example is seen")
    optimizer_name: str = flag("rmsprop", help="rule of the update", choices=OPTIMIZERS)
    op_momentum: float = flag(0.9, help="momentum; adam, adamw, lamb: decay of the mean gradient")
    op_decay_rate: float | None = flag(
        None,
        help="decay of the mean of squared gradients; by default 0.9 for rmsprop, and 0.999 for"
        " adam, adamw and lamb",
    )
    op_epsilon: float | None = flag(
        None,
        help="rmsprop: added to that mean, inside the square root, by default 1; adam, adamw, lamb:"
        " outside, by default 1e-7",
    )
    op_weight_decay: float = flag(
        0.0, help="adamw, lamb: decoupled weight decay of all kernels, times the learning rate"
    )
    learning_scheduler_name: str = flag(
        "exponential", help="how the learning rate falls", choices=SCHEDULES
    )
    lr: float = flag(0.045, help="learning rate after the warm-up")
    lr_decay_rate: float = flag(0.94, help="exponential, stepwise: factor at each decay")
    lr_decay_epochs: float = flag(2.5, help="exponential: epochs from one decay to the next")
    lr_boundaries: tuple[float, ...] = flag((), help="stepwise: epochs at which the rate falls")
    warmup_epochs: float = flag(0.0, help="epochs in which the rate rises from 0")
    label_smoothing: float = flag(0.0, help="part of the target spread over all classes")
    ma_decay_rate: float = flag(
        0.9999, help="decay of the moving averages that are evaluated and exported; 0 for none"
    )
    clip_gradient_norm: float = flag(
        0.0, help="longest gradient, over all weights; longer ones are scaled down; 0 for no limit"
    )
    gradient_accumulation: int = flag(
        1, help="parts that a batch is computed in, to need less memory; one update all the same"
    )
    teacher_checkpoint: str = flag(
        "", help="distillation: TF1 or TF2 checkpoint, or run, whose outputs are learnt as well"
    )
    distillation_weight: float = flag(0.5, help="distillation: weight of the teacher's outputs")
    distillation_temperature: float = flag(
        1.0, help="distillation: both sides' logits are divided by it"
    )

    @property
    def decay_rate(self) -> float:
        """`op_decay_rate`, or what suits the optimizer: slim's for RMSProp, else Keras'."""
        usual = 0.9 if self.optimizer_name == "rmsprop" else 0.999
        return usual if self.op_decay_rate is None else self.op_decay_rate

    @property
    def epsilon(self) -> float:
        """`op_epsilon`, likewise."""
        usual = 1.0 if self.optimizer_name == "rmsprop" else 1e-7
        return usual if self.op_epsilon is None else self.op_epsilon

    def __post_init__(self):
        _require(
            self,
            ("batch_size", "at least 1", self.batch_size >= 1),
            ("epochs", "at least 1", self.epochs >= 1),
            ("lr", "above 0", self.lr > 0),
            ("lr_decay_rate", "in (0, 1]", 0 < self.lr_decay_rate <= 1),
            ("lr_decay_epochs", "above 0", self.lr_decay_epochs > 0),
            (
                "lr_boundaries",
                "rising epochs above 0",
                list(self.lr_boundaries) == sorted(set(self.lr_boundaries))
                and all(boundary > 0 for boundary in self.lr_boundaries),
            ),
            ("warmup_epochs", "at least 0", self.warmup_epochs >= 0),
            ("op_momentum", "at least 0 and below 1", 0 <= self.op_momentum < 1),
            ("op_decay_rate", "at least 0 and below 1", 0 <= self.decay_rate < 1),
            ("op_epsilon", "above 0", self.epsilon > 0),
            ("op_weight_decay", "at least 0", self.op_weight_decay >= 0),
            ("label_smoothing", "at least 0 and below 1", 0 <= self.label_smoothing < 1),
            ("ma_decay_rate", "at least 0 and below 1", 0 <= self.ma_decay_rate < 1),
            ("clip_gradient_norm", "at least 0", self.clip_gradient_norm >= 0),
            ("gradient_accumulation", "at least 1", self.gradient_accumulation >= 1),
            ("distillation_weight", "in [0, 1]", 0 <= self.distillation_weight <= 1),
            ("distillation_temperature", "above 0", self.distillation_temperature > 0),
        )
        if self.learning_scheduler_name == "stepwise" and not self.lr_boundaries:
            raise UsageError("--learning_scheduler_name=stepwise needs --lr_boundaries=30,60,...")


@dataclasses.dataclass(frozen=True)
class DistributionFlags:
    """On which devices it is trained, and in which precision."""

    strategy: str = flag(
        "auto",
        help="auto: multi_worker where TF_CONFIG or CLUSTER_SPEC name several workers, mirrored"
        " with several GPUs or virtual devices, tpu where there is one or one is named, else"
        " default (one device)",
        choices=STRATEGIES,
    )
    num_virtual_devices: int = flag(
        1, help="without a GPU: parts that the CPU is cut into, to try distribution"
    )
    tpu: str = flag("", help="tpu: name or address of the TPU; empty for the local one")
    precision: str = flag(
        "float32",
        help="of the model's arithmetic; weights stay float32; float16 scales the loss",
        choices=PRECISIONS,
    )
    sync_batch_norm: bool = flag(
        False, help="batch norm over the global batch instead of each replica's part of it"
    )

    def __post_init__(self):
        _require(self, ("num_virtual_devices", "at least 1", self.num_virtual_devices >= 1))
        self._require_used("num_virtual_devices", self.num_virtual_devices > 1, "mirrored")
        self._require_used("tpu", bool(self.tpu), "tpu")

    def _require_used(self, name: str, is_given: bool, strategy: str) -> None:
        """Makes sure that a strategy that is chosen heeds the flag `name`; auto chooses by it.

        Raises:
            UsageError: it does not.
        """
        if is_given and self.strategy not in ("auto", strategy):
            raise UsageError(
                f"--{name}={getattr(self, name)} has no effect with --strategy={self.strategy}:"
                f" take --strategy={strategy}, or leave --{name} out"
            )


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Where the run lives, where it starts, how often it saves, when it ends."""

    model_dir: str = flag(
        help="directory of checkpoints, history and logs", variable="AIP_CHECKPOINT_DIR"
    )
    init_checkpoint: str = flag(
        "", help="TF1 checkpoint, or directory of a TF2 one, to start from; empty for random"
    )
    log_dir: str = flag(
        "",
        help="directory of TensorBoard's logs; logs/ in --model_dir by default",
        variable="AIP_TENSORBOARD_LOG_DIR",
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
    keep_checkpoints: int = flag(3, help="newest checkpoints that are kept, besides the best")
    eval_every_epochs: int = flag(1, help="epochs between evaluations; the last is evaluated too")
    steps_per_call: int = flag(20, help="most steps that run without a return to Python")
    early_stop_epochs: int = flag(
        0, help="end when --early_stop_metric has not improved for so many evaluations; 0: never"
    )
    early_stop_metric: str = flag(
        "validation_top_1",
        help="metric by which the best checkpoint is chosen and training ends early",
        choices=("validation_top_1", "validation_top_5", "validation_loss"),
    )
    on_nan: str = flag(
        "stop",
        help="when loss or weights break: stop, or rollback to the last checkpoint and go on at"
        " half the learning rate",
        choices=("stop", "rollback"),
    )
    log_examples: bool = flag(
        False,
        help="write the numbers of each step's examples to examples/worker-NNNNN.jsonl; in a"
        " bucket, where nothing can be appended, one such file for each call",
    )
    histograms: bool = flag(False, help="write histograms of all weights to TensorBoard")
    allow_changes: bool = flag(False, help="resume although settings have changed")
    dry_run: bool = flag(False, help="print what would be trained, and stop")

    @property
    def logs(self) -> str:
        """Where TensorBoard's logs are."""
        return self.log_dir or files.join(self.model_dir, "logs")

    def __post_init__(self):
        _require(
            self,
            *(
                (name, "at least 1", getattr(self, name) >= 1)
                for name in (
                    "checkpoint_every_steps",
                    "eval_every_epochs",
                    "steps_per_call",
                )
            ),
            # One that is written anew, after an evaluation, must not be the only one.
            ("keep_checkpoints", "at least 2", self.keep_checkpoints >= 2),
            ("early_stop_epochs", "at least 0", self.early_stop_epochs >= 0),
            ("seed", "at least 0 and below 2**32", 0 <= self.seed < 2**32),
        )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All flags of a training run, in the order in which `training.train` takes their groups."""

    model: ModelFlags
    data: DataFlags
    augmentation: AugmentationFlags
    optimization: OptimizationFlags
    distribution: DistributionFlags
    run: RunFlags

    @property
    def crc32(self) -> int:
        """A checksum of the settings, by which workers see that they have the same.

        Where the data lies may differ: each may have a copy of its own.
        """
        same = dataclasses.replace(self, data=dataclasses.replace(self.data, data_dir=""))
        return zlib.crc32(repr(same).encode())

    @property
    def groups(self) -> tuple[Any, ...]:
        """The six groups, as `training.train.train` takes them."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


FLAG_GROUPS = (
    ModelFlags,
    DataFlags,
    AugmentationFlags,
    OptimizationFlags,
    DistributionFlags,
    RunFlags,
)
