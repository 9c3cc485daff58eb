"""What a run was started with, in `config.json`, and under what it may be resumed."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from common import files
from common.errors import UserError
from training.config import Recipe, RunFlags

FILE_NAME = "config.json"

# By their modules: TensorFlow's wheel has another name on a TPU.
_VERSIONED = ("tensorflow", "keras", "numpy")

# What a run may be resumed under: how long it is, where its data lies, on how many devices it is
# computed and how often it reports does not change the order of the examples. (Without
# --sync_batch_norm the number of replicas does change what batch norm sees of a batch.)
_MAY_CHANGE = {
    ("optimization", "epochs"),
    ("data", "data_dir"),
    ("data", "dataset_name"),
    ("data", "eval_split"),
    ("data", "skip_corrupt_records"),
    ("augmentation", "eval_preprocessing"),
}
_OF_THE_RUN = ("seed", "init_checkpoint", "init_weights", "init_logits")
_OF_THE_DISTRIBUTION = ("precision", "sync_batch_norm")
_FINGERPRINTS = ("data_fingerprint", "teacher_fingerprint")

# By what one epoch is said to be better than another.
_OF_THE_JUDGEMENT = (
    ("data", "eval_split"),
    ("augmentation", "eval_preprocessing"),
    ("run", "early_stop_metric"),
)


def settings_of(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """All flags of a run, the libraries' versions, and `others`."""
    return {
        **{name: dataclasses.asdict(getattr(recipe, name)) for name in _groups(recipe)},
        "versions": {name: importlib.import_module(name).__version__ for name in _VERSIONED},
        **others,
    }


def read_settings(model_dir: str) -> dict[str, Any] | None:
    """Those of the run in `model_dir`; None if there is no run.

    Raises:
        UserError: they cannot be read.
    """
    path = files.join(model_dir, FILE_NAME)
    return files.read_json(path) if files.exists(path) else None


def settings_that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings by which a run's result is fixed; a run is resumed only under the same.

    How long it is, how often it saves and evaluates, and on how many devices it runs may change. A
    cosine's length is the length of the run, so there the number of epochs counts.
    """
    may_change = set(_MAY_CHANGE)
    if settings["optimization"]["learning_scheduler_name"] == "cosine":
        may_change.remove(("optimization", "epochs"))
    return (
        {
            f"{group}.{name}": value
            for group in ("model", "data", "augmentation", "optimization")
            for name, value in settings.get(group, {}).items()
            if (group, name) not in may_change
        }
        | {f"run.{n}": settings["run"].get(n) for n in _OF_THE_RUN}
        | {f"distribution.{n}": settings["distribution"].get(n) for n in _OF_THE_DISTRIBUTION}
        | {name: settings.get(name) for name in _FINGERPRINTS}
    )


def require_unchanged(run: RunFlags, settings: dict[str, Any], written: dict[str, Any]) -> None:
    """Refuses to go on with a run under other settings than those that were `written`.

    Raises:
        UserError: it lists what has changed.
    """
    if "data_fingerprint" not in written:
        raise UserError(
            f"{files.join(run.model_dir, FILE_NAME)} was written by an earlier version: give"
            " another --model_dir, or pass --allow_changes"
        )
    now, before = settings_that_matter(settings), settings_that_matter(written)
    # Through JSON, so that tuples and lists compare equal.
    changed = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in now.items()
        if before.get(name) != (list(value) if isinstance(value, tuple) else value)
    ]
    if changed:
        raise UserError(
            f"{run.model_dir} holds a run with other settings ({'; '.join(changed)}): give"
            " another --model_dir, or pass --allow_changes"
        )


def judge_alike(settings: dict[str, Any], written: dict[str, Any]) -> bool:
    """Whether what evaluations found under both can be compared."""
    return all(
        settings[group][name] == written.get(group, {}).get(name)
        for group, name in _OF_THE_JUDGEMENT
    )


def _groups(recipe: Recipe) -> list[str]:
    return [field.name for field in dataclasses.fields(recipe)]
