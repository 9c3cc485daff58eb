"""What a run would be, without running it: all settings, its size, its steps, what they need."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from typing import TYPE_CHECKING, Any

from training.config import OptimizationFlags, Recipe
from training.models.complexity import convolutions, count_macs, count_parameters
from training.models.configs import MobileNetConfig
from training.readers.memory import memory_note
from training.words import bytes_in_words

if TYPE_CHECKING:
    from training.models import ModelRecord
    from training.shards import Shards
    from training.strategies import Devices

# Values that an optimizer keeps for each trainable one.
SLOTS = {"sgd": 0, "momentum": 1, "rmsprop": 2, "adam": 2, "adamw": 2, "lamb": 2}

_FLOAT_BYTES = 4

# Of the settings: the names of groups, those of flags, a column with its value.
_MARGIN = 13
_NAME_WIDTH = 24
_CELL_WIDTH = 45

# TensorFlow's peak in a training step, over what all convolutions put out: their outputs, those of
# batch norm and activation, and gradients on their way back.
_COPIES_OF_ACTIVATIONS = 3.0


def describe(recipe: Recipe, record: ModelRecord, shards: Shards, devices: Devices) -> str:
    """All settings, and a table of what they make: model, steps, devices, memory, rates.

    Args:
        recipe: all flags.
        record: the model, and its labels.
        shards: what it would be trained on.
        devices: on what.
    """
    rows = [
        *_rows_of_model(record),
        *_rows_of_steps(recipe, shards.num_examples),
        *_rows_of_devices(recipe, record, devices),
        *_rows_of_memory(recipe, record, shards, devices),
        *_rows_of_rates(recipe.optimization, shards.num_examples),
    ]
    settings = settings_table(recipe, record.config)
    return f"all settings, * where it is not the default:\n\n{settings}\n\n{_table(rows)}"


def settings_table(recipe: Recipe, config: MobileNetConfig) -> str:
    """Every flag with the value that it has in the run, by groups, in columns read downwards.

    Args:
        recipe: all flags.
        config: the model, which knows what flags left to it.
    """
    left_alone = _left_alone(recipe, config)
    lines = []
    for place in dataclasses.fields(recipe):
        group = getattr(recipe, place.name)
        cells = [_cell(group, field, left_alone) for field in dataclasses.fields(group)]
        rows = _in_columns(cells)
        names = [place.name, *[""] * (len(rows) - 1)]
        lines += [f"{name:<{_MARGIN}}{row}" for name, row in zip(names, rows, strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def num_steps(optimization: OptimizationFlags, num_examples: int) -> int:
    """Updates of a whole run; the last batch reaches beyond its last epoch."""
    return -(-optimization.epochs * num_examples // optimization.batch_size)


def checkpoint_bytes(config: MobileNetConfig, optimization: OptimizationFlags) -> int:
    """Bytes of one checkpoint: weights, their averages, and the optimizer's slots, in float32."""
    parameters = count_parameters(config)
    copies = 2 if optimization.ma_decay_rate else 1
    slots = SLOTS[optimization.optimizer_name] * parameters.trainable
    return _FLOAT_BYTES * (copies * parameters.total + slots)


def run_bytes(recipe: Recipe, config: MobileNetConfig) -> int:
    """Bytes of all checkpoints that a run keeps, of the best weights, and of one being written."""
    one = checkpoint_bytes(config, recipe.optimization)
    return one * (recipe.run.keep_checkpoints + 1) + best_bytes(config)


def best_bytes(config: MobileNetConfig) -> int:
    """Bytes of the best weights, which are kept raw and averaged, old ones and new ones."""
    return 2 * 2 * _FLOAT_BYTES * count_parameters(config).total


def step_bytes(
    config: MobileNetConfig,
    optimization: OptimizationFlags,
    batch: int,
    teacher: MobileNetConfig | None = None,
) -> int:
    """About the memory that a float32 step on a batch of so many images takes at its peak.

    Args:
        config: the model.
        optimization: how it is trained.
        batch: images of one replica.
        teacher: the model whose outputs are learnt, if there is one.
    """
    outputs = sum(c.positions * c.channels for c in convolutions(config))
    part = -(-batch // optimization.gradient_accumulation)
    gradients = count_parameters(config).trainable * _FLOAT_BYTES
    activations = _COPIES_OF_ACTIVATIONS * part * outputs * _FLOAT_BYTES
    own = round(activations) + gradients + checkpoint_bytes(config, optimization)
    return own + (_teacher_bytes(teacher, part) if teacher else 0)


def _teacher_bytes(config: MobileNetConfig, batch: int) -> int:
    """Memory that only computes: the weights, and one layer's outputs, as none are kept."""
    largest = max(c.positions * c.channels for c in convolutions(config))
    activations = _COPIES_OF_ACTIVATIONS * batch * largest * _FLOAT_BYTES
    return round(activations) + count_parameters(config).total * _FLOAT_BYTES


def learning_rates(optimization: OptimizationFlags, num_examples: int) -> dict[float, float]:
    """The learning rate at some epochs: the start, the end, and where it turns."""
    import tensorflow as tf

    from training.schedules import make_schedule

    schedule = make_schedule(optimization, num_examples)
    return {
        epoch: float(schedule(tf.constant(round(epoch * num_examples), tf.int64)))
        for epoch in epochs_to_show(optimization)
    }


def epochs_to_show(optimization: OptimizationFlags) -> list[float]:
    """Epochs at which the learning rate is worth a line, the first and the last among them."""
    last = float(optimization.epochs)
    turns = {0.0, last}
    if 0 < optimization.warmup_epochs < last:
        turns.add(float(optimization.warmup_epochs))
    if optimization.learning_scheduler_name == "stepwise":
        turns |= {float(epoch) for epoch in optimization.lr_boundaries if epoch < last}
    elif optimization.learning_scheduler_name != "constant":
        turns |= {round(last * part / 4, 2) for part in (1, 2, 3)}
    return sorted(turns)


def _left_alone(recipe: Recipe, config: MobileNetConfig) -> dict[str, Any]:
    """What flags stand for that were left alone: the model's or the optimizer's own value."""
    options = recipe.optimization
    has_squares = SLOTS[options.optimizer_name] > 1  # gradients', whose mean these two are about
    return {
        "num_classes": config.num_classes,
        "dropout_rate": config.dropout_rate,
        "batch_norm_decay": config.batch_norm_decay,
        "std_weight_decay": config.weight_decay,
        "truncated_normal_stddev": config.stddev,
        "op_decay_rate": options.decay_rate if has_squares else None,
        "op_epsilon": options.epsilon if has_squares else None,
        "log_dir": recipe.run.logs,
    }


def _cell(group: Any, field: dataclasses.Field, left_alone: dict[str, Any]) -> str:
    value = getattr(group, field.name)
    is_changed = field.default not in (value, dataclasses.MISSING)
    shown = _shown(left_alone.get(field.name) if value in (None, "") else value)
    return f"{'*' if is_changed else ' '}{field.name:<{_NAME_WIDTH}} {shown}"


def _shown(value: Any) -> str:
    """A value as on the command line, but for words where it is no word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(_shown, value)) or "-"
    if isinstance(value, float):
        return f"{value:.12g}"
    return "-" if value in (None, "") else str(value)


def _in_columns(cells: list[str]) -> list[str]:
    """Cells in two columns; those that are too wide, as paths are, come first and by themselves."""
    narrow = [cell for cell in cells if len(cell) < _CELL_WIDTH]
    half = -(-len(narrow) // 2)
    pairs = itertools.zip_longest(narrow[:half], narrow[half:], fillvalue="")
    wide = [cell for cell in cells if len(cell) >= _CELL_WIDTH]
    return wide + [f"{left:<{_CELL_WIDTH}}{right}" for left, right in pairs]


def _rows_of_model(record: ModelRecord) -> list[tuple[str, str]]:
    config = record.config
    parameters = count_parameters(config)
    height, width = config.resolution
    return [
        ("model", f"{config.name}, width {config.width_multiplier:g}, {height}x{width}"),
        ("outputs", f"{config.num_classes} ({record.labels.num_classes} classes)"),
        ("parameters", f"{parameters.total:,} ({parameters.trainable:,} of them trained)"),
        ("multiply-adds", f"{count_macs(config):,} an image"),
        (
            "regularisation",
            f"dropout {config.dropout_rate:g}, weight decay {config.weight_decay:g}, batch norm"
            f" decay {config.batch_norm_decay:g}",
        ),
    ]


def _rows_of_steps(recipe: Recipe, num_examples: int) -> list[tuple[str, str]]:
    options = recipe.optimization
    each = num_examples / options.batch_size
    data = recipe.data
    where = f"{data.dataset_name}:" if data.dataset_name else ""
    return [
        ("examples", f"{num_examples:,} of {where}{data.train_split} in {data.data_dir}"),
        ("input", _input_in_words(recipe)),
        ("epochs", f"{options.epochs} of {math.ceil(each):,} steps ({each:,.1f})"),
        ("steps", f"{num_steps(options, num_examples):,}"),
        (
            "optimizer",
            f"{options.optimizer_name}, {options.learning_scheduler_name} from {options.lr:g}"
            + (f", averages {options.ma_decay_rate:g}" if options.ma_decay_rate else ""),
        ),
    ]


def _input_in_words(recipe: Recipe) -> str:
    flags = recipe.augmentation
    extras = {
        "mixup": flags.mixup_alpha,
        "cutmix": flags.cutmix_alpha,
        "random erasing": flags.random_erasing,
    }
    words = [flags.augmentation, *(f"{name} {value:g}" for name, value in extras.items() if value)]
    low, high = flags.input_range
    return f"{', '.join(words)}, in [{low:g}, {high:g}]"


def _rows_of_devices(recipe: Recipe, record, devices: Devices) -> list[tuple[str, str]]:
    batch = recipe.optimization.batch_size
    accumulation = recipe.optimization.gradient_accumulation
    in_parts = f", in {accumulation} parts" if accumulation > 1 else ""
    del record
    return [
        ("devices", f"{devices.description}, {recipe.distribution.precision}"),
        (
            "batch",
            f"{batch} on {devices.num_replicas} replicas:"
            f" {devices.replica_batch(batch)} each{in_parts}",
        ),
    ]


def _rows_of_memory(recipe: Recipe, record, shards, devices) -> list[tuple[str, str]]:
    config, options = record.config, recipe.optimization
    note = memory_note(
        recipe.data.num_streams,
        recipe.data.shuffle_window,
        shards.mean_record_bytes,
        options.batch_size // devices.num_workers,
        config.resolution,
    )
    share = devices.replica_batch(options.batch_size)
    one = checkpoint_bytes(config, options)
    step = f"about {bytes_in_words(step_bytes(config, options, share))} a replica"
    if options.teacher_checkpoint:  # which is not read here
        step += ", and what the teacher takes"
    return [
        ("input memory", note),
        ("step memory", step),
        (
            "a checkpoint",
            f"{bytes_in_words(one)} ({one:,} bytes), the newest {recipe.run.keep_checkpoints} are"
            f" kept: {bytes_in_words(run_bytes(recipe, config))} with the best",
        ),
    ]


def _rows_of_rates(options: OptimizationFlags, num_examples: int) -> list[tuple[str, str]]:
    rates = learning_rates(options, num_examples)
    text = "; ".join(f"{rate:.4g} at epoch {epoch:g}" for epoch, rate in rates.items())
    return [("learning rate", text)]


def _table(rows: list[tuple[str, str]]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    out = io.StringIO()
    Console(file=out, width=100, markup=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
