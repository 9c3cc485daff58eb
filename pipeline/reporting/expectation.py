"""Expected against reached: what the recipe promises and what was published, beside the run."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.experiments import Experiment
from pipeline.reporting.wording import is_number, setting

_GROUPS = ("model", "optimization", "augmentation")
_SHARE = re.compile(r"(?<![\d.])\.\d+")  # accuracies of recipes are written so: about .97
# An "about" is not a bound: within a point of it is as expected.
_SLACK = 0.01


def describe_expectation(
    experiment: Experiment | None,
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    comparable: bool,
) -> dict[str, Any] | None:
    """What was expected of the run, what was published, and what was reached; None if neither.

    Args:
        experiment: whose recipe was trained, or None.
        run: the `config.json` of the training.
        evaluation: as `describe_evaluation` gives it.
        comparable: the data set is ImageNet, which published figures are of.
    """
    published = evaluation.get("published") or None
    if experiment is None and published is None:
        return None
    top_1, interval = evaluation.get("top_1"), evaluation.get("interval")
    expected = _expected_top_1(experiment)
    return {
        "experiment": experiment,
        "expected": _in_percent(experiment.accuracy) if experiment else "",
        "verdict": _verdict(top_1, interval, expected),
        "changes": changes(experiment, run) if experiment else [],
        "published": published and _published(published, evaluation, comparable),
    }


def changes(experiment: Experiment, run: Mapping[str, Any]) -> list[str]:
    """Settings of the run that are not the recipe's, in words."""
    recipe = experiment.recipe
    wanted = {
        "optimization": dataclasses.asdict(recipe.optimization),
        "augmentation": dataclasses.asdict(recipe.augmentation),
    }
    # The record of a run went through JSON, which has lists only.
    wanted = json.loads(json.dumps(wanted))
    model = run.get("model") or {}
    told = [
        ("model", recipe.model.model_name, model.get("name")),
        ("width", recipe.model.width_multiplier, model.get("width_multiplier")),
        ("resolution", recipe.model.resolution, (model.get("input_shape") or [None])[0]),
        *(
            (name, value, (run.get(group) or {}).get(name))
            for group, settings in wanted.items()
            for name, value in settings.items()
        ),
    ]
    return [
        f"{name} {setting(actual)} instead of {setting(value)}"
        for name, value, actual in told
        if actual is not None and actual != value
    ]


def _expected_top_1(experiment: Experiment | None) -> float | None:
    """The accuracy that a recipe names; None where it names none."""
    found = _SHARE.search(experiment.accuracy) if experiment else None
    return float(found[0]) if found else None


def _in_percent(accuracy: str) -> str:
    """An accuracy as recipes write it, in percent: about 97 % for about .97."""
    return _SHARE.sub(lambda found: f"{100 * float(found[0]):.3g}\N{NO-BREAK SPACE}%", accuracy)


def _verdict(top_1: Any, interval: tuple[float, float] | None, expected: float | None) -> str:
    """'as expected', 'below' or 'above'; empty where one of the two is not known.

    A figure is below only if even the upper end of its interval is.
    """
    if expected is None or not is_number(top_1):
        return ""
    low, high = interval or (top_1, top_1)
    if high < expected - _SLACK:
        return "below"
    return "above" if low > expected + _SLACK else "as expected"


def _published(
    published: Mapping[str, Any], evaluation: Mapping[str, Any], comparable: bool
) -> dict[str, Any]:
    """The zoo's figures, and how far ours are from them where both are of the same data."""

    def difference(key: str) -> float | None:
        ours, theirs = evaluation.get(key), published.get(key)
        both = comparable and is_number(ours) and is_number(theirs)
        return ours - theirs if both else None

    return {
        "comparable": comparable,
        **{key: published.get(key) for key in ("name", "source", "top_1", "top_5")},
        "differences": [difference(key) for key in ("top_1", "top_5")],
    }
