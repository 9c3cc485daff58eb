"""What the report says about a run's settings: the model's title, tables, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.reporting.wording import is_number

_TABLES = (
    ("Model", "model"),
    ("Optimisation", "optimization"),
    ("Data", "data"),
    ("Run", "run"),
)


def model_title(model: Mapping[str, Any]) -> str:
    """`mobilenet_v1 0.25` for a model's configuration."""
    name, width = model.get("name"), model.get("width_multiplier")
    return " ".join(str(word) for word in (name or "Unknown model", width) if word is not None)


def input_size(model: Mapping[str, Any]) -> int | None:
    """Pixels a side of the model's input."""
    shape = model.get("input_shape")
    return shape[0] if isinstance(shape, list) and shape and is_number(shape[0]) else None


def configuration_tables(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title and (name, setting) rows of each group of settings."""
    return [
        {"title": title, "rows": list(_flattened(run[key]))}
        for title, key in _TABLES
        if isinstance(run.get(key), dict) and run[key]
    ]


def versions_of(*parts: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Name to the versions seen, which are several where stages ran in different environments."""
    seen: dict[str, list[str]] = {}
    for part in parts:
        versions = part.get("versions")
        for name, version in (versions if isinstance(versions, dict) else {}).items():
            known = seen.setdefault(str(name), [])
            if str(version) not in known:
                known.append(str(version))
    return sorted(seen.items())


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
