"""What the report says about cost: multiply-adds, latency, and the released models beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError
from loaders.zoo import ZooRow, load_zoo
from pipeline.reporting.cost_plot import Mark, accuracy_over_macs
from pipeline.reporting.wording import is_number
from training.models.complexity import count_macs, count_parameters
from training.models.configs import MobileNetConfig, make_config

_PHONES = {
    "pixel1_ms": "Pixel 1",
    "pixel2_ms": "Pixel 2",
    "pixel3_ms": "Pixel 3",
    "pixel4_cpu_ms": "Pixel 4, CPU",
    "pixel4_edgetpu_ms": "Pixel 4, Edge TPU",
}
_MOST_ROWS = 8  # of published latencies, those nearest in cost
_OURS = "ours"
_BUSY = 0.7  # load average from which times are those of other work too


def describe_cost(
    model: Mapping[str, Any],
    title: str,
    evaluation: Mapping[str, Any],
    latency: Mapping[str, Any],
    comparable: bool,
) -> dict[str, Any]:
    """Cost of the model, and where it stands among the released ones.

    Args:
        model: its configuration as JSON has it.
        title: what the model is called.
        evaluation: as `describe_evaluation` gives it.
        latency: what `benchmarks.latency` wrote, or a dictionary with `missing`.
        comparable: the data set is ImageNet, so that accuracies can be compared.
    """
    config = read_config(model)
    macs = count_macs(config) if config else None
    zoo = [row for row in load_zoo() if not row.quantized]
    kin = [row for row in zoo if config and _same_architecture(row, config)]
    top_1, interval = evaluation.get("top_1"), evaluation.get("interval")
    own = Mark(title, macs, top_1, interval) if macs and is_number(top_1) else None
    return {
        "macs": macs,
        "parameters": count_parameters(config).trainable if config else None,
        "chart": accuracy_over_macs([row for row in zoo if row.top_1], own, kin),
        "on_chart": own is not None,
        "kin": [row.label for row in kin],
        "comparable": comparable,
        "latency": describe_latency(latency),
        "phones": _phones(zoo, config),
        "title": title,
    }


def read_config(model: Mapping[str, Any]) -> MobileNetConfig | None:
    """The configuration that JSON holds; None if it is of no model that is known here."""
    settings = dict(model)
    try:
        return make_config(settings.pop("name"), **settings)
    except (KeyError, TypeError, UserError):
        return None


def describe_latency(latency: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of milliseconds in the order of the file, and the machine; None without any.

    Args:
        latency: `{"rows": [{"artifact", "side", "threads", "batch", "median_ms", "p10_ms",
            "p90_ms"}], "machine": {...}}`; a side other than `ours` is another library's export.
    """
    rows = [
        {
            "artifact": row.get("artifact"),
            "other": "" if row.get("side", _OURS) == _OURS else str(row["side"]),
            **{key: row.get(key) for key in ("threads", "batch", "median_ms", "p10_ms", "p90_ms")},
        }
        for row in latency.get("rows") or []
        if is_number(row.get("median_ms")) and row["median_ms"] > 0
    ]
    ours = [row for row in rows if not row["other"]]
    if not ours:
        return None
    longest = max(row["median_ms"] for row in rows)
    machine = latency.get("machine")
    return {
        "fastest": min(ours, key=lambda row: row["median_ms"]),
        "batches": len({row["batch"] for row in rows}) > 1,
        "rows": [row | {"share": row["median_ms"] / longest} for row in rows],
        "machine": _machine(machine if isinstance(machine, dict) else {}),
    }


def _machine(machine: Mapping[str, Any]) -> str:
    """What the machine is, in a line."""
    words = [str(machine[key]) for key in ("processor", "system") if machine.get(key)]
    if is_number(machine.get("cores")):
        words.insert(1, f"{machine['cores']} cores")
    versions = machine.get("versions")
    if isinstance(versions, dict):
        words += [f"{name} {version}" for name, version in versions.items()]
    if is_number(machine.get("load")) and machine["load"] > _BUSY:
        words.append(f"busy with other work (load {machine['load']:.1f})")
    return ", ".join(words)


def _same_architecture(row: ZooRow, config: MobileNetConfig) -> bool:
    width = math.isclose(row.width_multiplier, config.width_multiplier)
    return row.model_name == config.name and width


def _phones(zoo: Sequence[ZooRow], config: MobileNetConfig | None) -> dict[str, Any] | None:
    """Published latencies of the model's family, or of the released models nearest in cost."""
    if config is None:
        return None
    timed = [row for row in zoo if any(getattr(row, column) for column in _PHONES)]
    family = [row for row in timed if row.model_name == config.name]
    macs = count_macs(config)
    rows = sorted(family or timed, key=lambda row: abs(math.log(count_macs(row.config()) / macs)))
    rows = sorted(rows[:_MOST_ROWS], key=lambda row: count_macs(row.config()))
    columns = [column for column in _PHONES if any(getattr(row, column) for row in rows)]
    return {
        "of_family": bool(family),
        "columns": [_PHONES[column] for column in columns],
        "rows": [
            {
                "name": row.name,
                "macs": count_macs(row.config()),
                "top_1": row.top_1,
                "same": _same_architecture(row, config) and row.resolution == config.resolution[0],
                "latencies": [getattr(row, column) for column in columns],
            }
            for row in rows
        ],
    }
