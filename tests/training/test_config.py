import dataclasses
import json

import pytest

from common.errors import UsageError
from training.config import (
    DataFlags,
    ModelFlags,
    OptimizationFlags,
    RunFlags,
    settings_that_matter,
)
from training.input_pipeline import TrainingInput
from training.models import MobileNetV1Config, ModelRecord, build_model, make_config
from training.models.archs import Pool, divisible_width, truncated_width
from training.models.complexity import count_parameters
from training.models.configs import CONFIGS


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


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": 0},
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr_decay_rate": 0.0},
        {"lr_decay_rate": 1.5},
        {"lr_decay_epochs": 0.0},
        {"warmup_epochs": -1.0},
        {"op_momentum": 1.0},
        {"op_decay_rate": 1.0},
        {"op_epsilon": 0.0},
        {"label_smoothing": 1.0},
        {"ma_decay_rate": 1.0},
    ],
    ids=str,
)
def test_wrong_optimisation_flags_are_named(fields):
    with pytest.raises(UsageError, match=f"--{next(iter(fields))} must be "):
        OptimizationFlags(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoint_every_steps": 0},
        {"keep_checkpoints": 0},
        {"eval_every_epochs": 0},
        {"steps_per_call": 0},
        {"seed": -1},
        {"seed": 2**32},
    ],
    ids=str,
)
def test_wrong_run_flags_are_named(fields):
    with pytest.raises(UsageError, match=f"--{next(iter(fields))} must be "):
        RunFlags("run", **fields)


@pytest.mark.parametrize("input_range", [(1.0, -1.0), (0.0, 0.0), (0.0,), (0.0, 1.0, 2.0), ()])
def test_an_input_range_is_a_low_and_a_high_value(input_range):
    with pytest.raises(UsageError, match="--input_range must be LOW,HIGH"):
        DataFlags("data", input_range=input_range)


@pytest.mark.parametrize("fields", [{"batch_size": 0}, {"min_crop_area": 0.0}])
def test_wrong_input_options_are_named(fields):
    with pytest.raises(UsageError, match=f"--{next(iter(fields))} must be "):
        TrainingInput(**({"batch_size": 1, "size": (32, 32), "seed": 0} | fields))


def test_model_flags_left_alone_keep_the_models_own_values():
    config = ModelFlags(width_multiplier=0.5, resolution=96).config(10)
    assert config == MobileNetV1Config(10, (96, 96, 3), 0.5, classifier_activation=None)
    assert ModelFlags(dropout_rate=0.0, batch_norm_decay=0.9).config(10).dropout_rate == 0.0


def test_length_and_bookkeeping_may_change_and_all_else_may_not():
    def settings(**changes):
        groups = {
            "model": MobileNetV1Config().to_json(),
            "data": dataclasses.asdict(DataFlags("data")),
            "optimization": dataclasses.asdict(OptimizationFlags()),
            "run": dataclasses.asdict(RunFlags("run")),
        }
        for name, value in changes.items():
            next(group for group in groups.values() if name in group)[name] = value
        return settings_that_matter(groups | {"data_manifest_sha256": "x"})

    usual = settings()
    for name in ("epochs", "data_dir", "keep_checkpoints", "checkpoint_every_steps"):
        assert settings(**{name: 77}) == usual
    for name in ("lr", "seed", "batch_size", "width_multiplier", "input_range", "init_checkpoint"):
        assert settings(**{name: 77}) != usual
