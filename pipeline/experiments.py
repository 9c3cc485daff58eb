"""Named experiments: `python -m pipeline.experiments`.

Each is a recipe with what it costs, what it reaches, and where that is known from. The recipes are
in `pipeline/recipes/`.
"""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from typing import Any

from common import command, files
from common.command import flag, to_flags
from common.errors import UsageError
from pipeline.recipes import published_tf1, published_torch, small
from pipeline.recipes.experiment import CHECKPOINT, SCRATCH, TF1, Experiment
from pipeline.recipes.small import DEMO, DEMO_SCRATCH, PRETRAINING, SMALL

__all__ = [
    "CHECKPOINT",
    "DEMO",
    "DEMO_SCRATCH",
    "EXPERIMENTS",
    "PRETRAINING",
    "SCRATCH",
    "SMALL",
    "TF1",
    "Experiment",
    "find_experiment",
    "training_flags",
]

EXPERIMENTS = {
    experiment.name: experiment
    for module in (small, published_tf1, published_torch)
    for experiment in module.EXPERIMENTS
}


@dataclasses.dataclass(frozen=True)
class ShowConfig:
    """Which experiments are shown, and how."""

    name: str = flag("", help="only this one, with its flags; empty for a table of all")
    format: str = flag(
        "text",
        help="text: for people; flags: the recipe's flags of training.train and nothing else;"
        " markdown: docs/recipes.md",
        choices=("text", "flags", "markdown"),
    )
    output: str = flag("", help="file to write; empty for the screen")


def find_experiment(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {name!r}: there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def training_flags(experiment: Experiment) -> list[str]:
    """The recipe as flags of `training.train`, without the directories."""
    words = (word for group in experiment.recipe.groups for word in to_flags(group))
    return [word for word in words if word not in ("--data_dir=", "--model_dir=")]


def show(config: ShowConfig) -> None:
    """Lists the experiments, or shows the flags of one: what it costs, reaches, and who says so."""
    text = _shown(config)
    if config.output:
        files.write_text(config.output, f"{text}\n")
    else:
        print(text)


def _shown(config: ShowConfig) -> str:
    if config.format == "markdown":
        return _markdown()
    if config.format == "flags":
        if not config.name:
            raise UsageError("--format=flags needs --name: the flags of which experiment?")
        return shlex.join(training_flags(find_experiment(config.name)))
    return _described(find_experiment(config.name)) if config.name else _table()


def _table() -> str:
    rows = [("name", "model", "epochs", "time", "on", "top-1")]
    for experiment in EXPERIMENTS.values():
        rows.append(
            (
                experiment.name,
                _model(experiment),
                str(experiment.recipe.optimization.epochs),
                experiment.time,
                experiment.hardware,
                experiment.accuracy,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(
        [*lines, "", "--name=NAME tells where these figures come from, and the flags."]
    )


def _described(experiment: Experiment) -> str:
    told = {
        "command": experiment.command,
        "hardware": experiment.hardware,
        "time": experiment.time,
        "top-1": experiment.accuracy,
        "source": experiment.source,
    }
    lines = [
        _filled(value, width=100, initial_indent=f"{title + ':':10}", subsequent_indent=" " * 10)
        for title, value in told.items()
    ]
    return "\n".join([experiment.name, *lines, "", _command_line(experiment)])


def _command_line(experiment: Experiment) -> str:
    """The recipe as a command of `training.train`, folded for the shell."""
    words = ["--data_dir=DATA", "--model_dir=MODEL", *training_flags(experiment)]
    if experiment.init == CHECKPOINT:
        words.insert(2, "--init_checkpoint=CHECKPOINT")
    return _for_the_shell(f"python -m training.train {shlex.join(words)}")


def _for_the_shell(line: str) -> str:
    """A command line, folded."""
    return _filled(line, width=98, subsequent_indent="  ").replace("\n", " \\\n")


def _filled(text: str, **layout: Any) -> str:
    return textwrap.fill(text, break_long_words=False, break_on_hyphens=False, **layout)


def _model(experiment: Experiment) -> str:
    model = experiment.recipe.model
    return f"{model.model_name} {model.width_multiplier:g} at {model.resolution}"


def _markdown() -> str:
    """`docs/recipes.md`: all experiments with their sources and flags."""
    overview = "\n".join(
        f"| [`{e.name}`](#{e.name}) | {_model(e)} | {e.recipe.optimization.epochs} | {e.time} |"
        f" {e.hardware} | {e.accuracy} |"
        for e in EXPERIMENTS.values()
    )
    sections = "\n\n".join(map(_section, EXPERIMENTS.values()))
    return _MARKDOWN_HEAD + overview + "\n\n" + sections


def _section(experiment: Experiment) -> str:
    told = (
        f"Hardware: {experiment.hardware}. Time: {experiment.time}. Top-1: {experiment.accuracy}."
        f" Source: {experiment.source}."
    )
    commands = (_for_the_shell(experiment.command), _command_line(experiment))
    first, second = (f"```shell\n{lines}\n```" for lines in commands)
    return f"## {experiment.name}\n\n{first}\n\n{_filled(told, width=100)}\n\n{second}"


_MARKDOWN_HEAD = """# Recipes

This page is written by `make recipes` from `pipeline/recipes/`. Times and accuracies are published,
derived or measured, as the source says; where nobody has measured one, it says so. A batch is the
global one: on fewer or smaller devices `--gradient_accumulation` computes it in parts, with batch
norm's statistics then of each part.

The ImageNet recipes train on `train[:99%]` and choose their best checkpoint on `train[99%:]`; the
stage `evaluate` counts all of `validation` once, at the end. [Training](training.md) says how they
are run, resumed and changed.

| name | model | epochs | time | on | top-1 |
|---|---|---|---|---|---|
"""

if __name__ == "__main__":
    command.run(show, ShowConfig)
