import dataclasses
import json

import pytest

from common.command import parse, to_flags
from common.errors import UsageError
from training.config import (
    FLAG_GROUPS,
    STRATEGIES,
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
)
from training.models import MobileNetV1Config, ModelRecord, build_model, make_config
from training.models.archs import Pool, divisible_width, truncated_width
from training.models.complexity import count_parameters
from training.models.configs import CONFIGS
from training.settings import settings_that_matter


@pytest.mark.parametrize(
    "fields",
    [
        {"num_classes": 0},
        {"num_classes": -3},
        {"num_classes": 2.5},
        {"num_classes": "many"},
        {"num_classes": float("nan")},
        {"num_classes": float("inf")},
        {"input_shape": (31, 224, 3)},
        {"input_shape": (224, 224, 1)},
        {"input_shape": (224, 224)},
        {"input_shape": (224.5, 224, 3)},
        {"input_shape": 224},
        {"input_shape": "224"},
        {"width_multiplier": 0},
        {"width_multiplier": -1.0},
        {"width_multiplier": float("inf")},
        {"width_multiplier": float("nan")},
        {"width_multiplier": "wide"},
        {"dropout_rate": 1.0},
        {"dropout_rate": -0.1},
        {"batch_norm_decay": 1.0},
        {"batch_norm_epsilon": 0.0},
        {"weight_decay": -1e-5},
        {"stddev": 0.0},
        {"activation_name": "tanh"},
        {"classifier_activation": "sigmoid"},
        {"include_top": "no"},
        {"quantization_aware": 8},
    ],
    ids=str,
)
def test_a_wrong_value_is_a_usage_error_that_names_field_and_value(fields):
    ((name, value),) = fields.items()
    for model, config in CONFIGS.items():
        for make in (config, lambda model=model, **f: make_config(model, **f)):
            with pytest.raises(UsageError) as one:
                make(**fields)
            assert f"{name} of {model} must be" in str(one.value) and repr(value) in str(one.value)


def test_unknown_models_and_fields_are_refused_with_what_there_is():
    with pytest.raises(UsageError, match="unknown model 'mobilenet_v9': there are mobilenet_v1"):
        make_config("mobilenet_v9")
    for model in CONFIGS:
        with pytest.raises(UsageError, match=r"has no field 'alpha'.*width_multiplier"):
            make_config(model, alpha=0.5)
        with pytest.raises(TypeError, match="alpha"):
            CONFIGS[model](alpha=0.5)


def test_a_usage_error_is_a_value_error_for_users_of_the_api():
    with pytest.raises(ValueError, match="width_multiplier"):
        MobileNetV1Config(width_multiplier=0)


def test_the_defaults_of_mobilenet_v1_are_those_of_slim():
    config = MobileNetV1Config()
    assert (config.num_classes, config.input_shape) == (1001, (224, 224, 3))
    assert (config.batch_norm_decay, config.batch_norm_epsilon) == (0.9997, 0.001)
    assert (config.weight_decay, config.stddev, config.dropout_rate) == (4e-5, 0.09, 0.001)
    blocks = [block for block in config.family.blocks if not isinstance(block, Pool)]
    assert {block.activation for block in blocks} == {"relu6"}


@pytest.mark.parametrize(
    ("multiplier", "widths"),
    [(0.4, [12, 25, 51, 102, 204, 409]), (0.1, [8, 8, 12, 25, 51, 102])],
)
def test_widths_are_cut_off_and_never_below_8(multiplier, widths):
    of_paper = [32, 64, 128, 256, 512, 1024]
    assert [truncated_width(width, multiplier) for width in of_paper] == widths


@pytest.mark.parametrize(
    ("width", "rounded"),
    [(11.2, 16), (8.4, 8), (44.8, 48), (33.6, 32), (201.6, 200), (5.6, 8)],
)
def test_widths_are_multiples_of_8_that_lose_at_most_a_tenth(width, rounded):
    assert divisible_width(width) == rounded
    assert divisible_width(width * 2, 0.5) == rounded


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("width", [0.01, 0.17, 0.35, 0.66, 1.0, 1.09, 1.4])
def test_every_family_builds_at_every_width(model, width):
    """By the arithmetic on the table for all of them, as layers for two."""
    config = make_config(model, width_multiplier=width, input_shape=(33, 47, 3), num_classes=3)
    parameters = count_parameters(config)
    assert parameters.trainable > 0
    if width in (0.01, 1.09):
        assert build_model(config).output_shape == (None, 3)


@pytest.mark.parametrize("model", CONFIGS)
def test_every_config_is_read_as_it_was_written(model):
    config = make_config(model, num_classes=5, include_top=False, quantization_aware=True)
    written = json.loads(json.dumps(config.to_json()))
    assert make_config(written.pop("name"), **written) == config
    assert config.family.name == model


def test_a_record_is_read_as_it_was_written(tmp_path):
    from common.labels import LabelNumbering

    record = ModelRecord(
        MobileNetV1Config(3, (96, 64, 3), 0.5, classifier_activation=None, activation_name="relu"),
        LabelNumbering(2, 1),
        ("cat", "dög"),
        (0.0, 1.0),
        weights="both",
    )
    record.write(str(tmp_path))
    assert ModelRecord.read(str(tmp_path)) == record


# The flags that a group cannot do without, and for each group values that are refused.
NEEDED = {DataFlags: {"data_dir": "data"}, RunFlags: {"model_dir": "run"}}
WRONG = {
    DataFlags: [{"skip_corrupt_records": -1}, {"num_streams": 0}, {"shuffle_window": 0}],
    AugmentationFlags: [
        {"min_crop_area": 0.0},
        {"min_crop_area": 1.1},
        {"randaugment_layers": 0},
        {"randaugment_magnitude": 10.5},
        {"mixup_alpha": -0.1},
        {"cutmix_alpha": float("nan")},
        {"random_erasing": 1.5},
    ],
    OptimizationFlags: [
        {"batch_size": 0},
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr_decay_rate": 0.0},
        {"lr_decay_rate": 1.5},
        {"lr_decay_epochs": 0.0},
        {"lr_boundaries": (0.0, 1.0)},
        {"lr_boundaries": (2.0, 1.0)},
        {"lr_boundaries": (1.0, 1.0)},
        {"warmup_epochs": -1.0},
        {"op_momentum": 1.0},
        {"op_decay_rate": 1.0},
        {"op_epsilon": 0.0},
        {"op_weight_decay": -0.1},
        {"label_smoothing": 1.0},
        {"ma_decay_rate": 1.0},
        {"clip_gradient_norm": -1.0},
        {"gradient_accumulation": 0},
        {"distillation_weight": 1.1},
        {"distillation_temperature": 0.0},
    ],
    DistributionFlags: [{"num_virtual_devices": 0}],
    RunFlags: [
        {"checkpoint_every_steps": 0},
        {"keep_checkpoints": 0},
        {"eval_every_epochs": 0},
        {"steps_per_call": 0},
        {"early_stop_epochs": -1},
        {"seed": -1},
        {"seed": 2**32},
    ],
}


@pytest.mark.parametrize(
    ("group", "fields"),
    [pytest.param(g, fields, id=str(fields)) for g, wrong in WRONG.items() for fields in wrong],
)
def test_a_wrong_flag_is_named_with_its_value(group, fields):
    ((name, value),) = fields.items()
    with pytest.raises(UsageError) as error:
        group(**NEEDED.get(group, {}), **fields)
    assert f"--{name} must be " in str(error.value)
    assert str(error.value).endswith(f", not {value}")


@pytest.mark.parametrize("input_range", [(1.0, -1.0), (0.0, 0.0), (0.0,), (0.0, 1.0, 2.0), ()])
def test_an_input_range_is_a_low_and_a_high_value(input_range):
    with pytest.raises(UsageError, match="--input_range must be LOW,HIGH"):
        AugmentationFlags(input_range=input_range)


def test_stepwise_needs_its_boundaries():
    with pytest.raises(UsageError, match="stepwise needs --lr_boundaries=30,60"):
        OptimizationFlags(learning_scheduler_name="stepwise")
    OptimizationFlags(learning_scheduler_name="stepwise", lr_boundaries=(0.5,))


@pytest.mark.parametrize(
    ("fields", "heeds"),
    [
        ({"num_virtual_devices": 4}, "mirrored"),
        ({"tpu": "a-name"}, "tpu"),
    ],
)
def test_a_flag_that_the_strategy_does_not_heed_is_refused(fields, heeds):
    ((name, value),) = fields.items()
    for strategy in STRATEGIES:
        if strategy in ("auto", heeds):
            DistributionFlags(strategy, **fields)
            continue
        told = f"--{name}={value} has no effect with --strategy={strategy}: take --strategy={heeds}"
        with pytest.raises(UsageError, match=told):
            DistributionFlags(strategy, **fields)
        DistributionFlags(strategy)


COMMAND_LINE = ["train", "--data_dir=data", "--model_dir=run"]


@pytest.mark.parametrize(
    ("words", "boundaries"),
    [
        ([], ()),
        (["--lr_boundaries="], ()),
        (["--lr_boundaries=30"], (30.0,)),
        (["--lr_boundaries=30, 60,80.5"], (30.0, 60.0, 80.5)),
    ],
)
def test_boundaries_are_read_from_the_command_line_and_written_to_it(words, boundaries):
    groups = parse([*COMMAND_LINE, *words], *FLAG_GROUPS)
    optimization = Recipe(*groups).optimization
    assert optimization.lr_boundaries == boundaries
    assert parse(["train", *to_flags(optimization)], OptimizationFlags) == [optimization]


@pytest.mark.parametrize("words", [["--lr_boundaries=30,many"], ["--lr_boundaries=60,30"]])
def test_boundaries_that_are_none_are_a_usage_error(words):
    with pytest.raises(UsageError, match="lr_boundaries"):
        parse([*COMMAND_LINE, *words], *FLAG_GROUPS)


@pytest.mark.parametrize(
    "flag",
    [
        "optimizer_name=lion",
        "learning_scheduler_name=linear",
        "augmentation=full",
        "eval_preprocessing=nearest",
        "strategy=horovod",
        "precision=int8",
        "on_nan=ignore",
        "early_stop_metric=loss",
    ],
)
def test_a_choice_that_there_is_not_is_a_usage_error(flag):
    with pytest.raises(UsageError, match=flag.partition("=")[0]):
        parse([*COMMAND_LINE, f"--{flag}"], *FLAG_GROUPS)


def test_the_groups_of_a_command_line_are_those_of_a_recipe():
    groups = parse(COMMAND_LINE, *FLAG_GROUPS)
    assert Recipe(*groups).groups == tuple(groups)
    assert tuple(type(group) for group in groups) == FLAG_GROUPS
    assert groups == [group(**NEEDED.get(group, {})) for group in FLAG_GROUPS]


def test_model_flags_left_alone_keep_the_models_own_values():
    config = ModelFlags(width_multiplier=0.5, resolution=96).config(10)
    assert config == MobileNetV1Config(10, (96, 96, 3), 0.5, classifier_activation=None)
    assert ModelFlags(dropout_rate=0.0, batch_norm_decay=0.9).config(10).dropout_rate == 0.0


def settings(**changes):
    """What config.json holds, with changes to flags of any group."""
    recipe = Recipe(*parse(COMMAND_LINE, *FLAG_GROUPS))
    groups = dataclasses.asdict(recipe) | {"model": MobileNetV1Config().to_json()}
    for name, value in changes.items():
        next(group for group in groups.values() if name in group)[name] = value
    return groups | {"data_fingerprint": "x"}


# By what is done to a run: the flags that may change when it is resumed.
FREE = {
    "run longer": {"epochs"},
    "move the data": {"data_dir", "dataset_name", "eval_split", "skip_corrupt_records"},
    "evaluate otherwise": {"eval_preprocessing"},
    "compute elsewhere": {"strategy", "num_virtual_devices", "tpu"},
    "report and save otherwise": {
        "model_dir",
        "log_dir",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "eval_every_epochs",
        "steps_per_call",
        "early_stop_epochs",
        "early_stop_metric",
        "on_nan",
        "histograms",
        "log_examples",
        "allow_changes",
        "dry_run",
    },
}


def test_length_and_bookkeeping_may_change_and_all_else_may_not():
    """Every flag is on one side or the other, so that a new one has to take a side here."""
    usual = settings_that_matter(settings())
    flags = {name for values in settings().values() if isinstance(values, dict) for name in values}
    free = set().union(*FREE.values())
    assert free <= flags
    for name in flags:
        changed = settings_that_matter(settings(**{name: 77}))
        assert (changed == usual) == (name in free), name


def test_another_data_set_is_another_run():
    assert settings_that_matter(settings()) != settings_that_matter(
        settings() | {"data_fingerprint": "y"}
    )


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "stepwise", "constant"])
def test_the_length_of_a_run_counts_where_the_schedule_ends_with_it(schedule):
    short, long = (
        settings_that_matter(settings(learning_scheduler_name=schedule, epochs=epochs))
        for epochs in (10, 20)
    )
    assert (short != long) == (schedule == "cosine")


@pytest.mark.parametrize(
    ("name", "decay_rate", "epsilon"), [("rmsprop", 0.9, 1.0), ("adam", 0.999, 1e-7)]
)
def test_what_is_not_said_of_an_optimizer_suits_it(name, decay_rate, epsilon):
    usual = OptimizationFlags(optimizer_name=name)
    assert (usual.decay_rate, usual.epsilon) == (decay_rate, epsilon)
    said = OptimizationFlags(optimizer_name=name, op_decay_rate=0.5, op_epsilon=0.01)
    assert (said.decay_rate, said.epsilon) == (0.5, 0.01)
