"""How the report writes numbers and settings."""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "–"

_ARTIFACTS = {
    "checkpoint": "TF2 checkpoint",
    "saved_model": "SavedModel",
    "keras": "Keras file",
    "litert_float32": "LiteRT float32",
    "litert_float16": "LiteRT float16",
    "litert_dynamic": "LiteRT dynamic range",
    "litert_int8": "LiteRT int8",
    "onnx": "ONNX",
}


def is_number(value: Any) -> bool:
    """Whether it is a number that can be shown: neither NaN nor infinite, nor yes or no."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def percent(value: Any, digits: int = 1) -> str:
    """A share of one."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%" if is_number(value) else UNKNOWN


def points(value: Any, digits: int = 1) -> str:
    """A difference of two shares, in percentage points with its sign."""
    if not is_number(value):
        return UNKNOWN
    sign = "+" if round(100 * value, digits) > 0 else "−" if round(100 * value, digits) < 0 else "±"
    return f"{sign}{abs(100 * value):.{digits}f}\N{NO-BREAK SPACE}points"


def size(count: Any) -> str:
    """Bytes as people read them, in powers of ten."""
    if not is_number(count):
        return UNKNOWN
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def count(value: Any) -> str:
    """A whole number with separators."""
    return f"{value:,}" if is_number(value) else UNKNOWN


def rounded(value: Any) -> str:
    """Four digits."""
    return f"{value:.4g}" if is_number(value) else UNKNOWN


def short(value: Any) -> str:
    """Two digits, for limits and tiny differences."""
    if not is_number(value):
        return UNKNOWN
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def millions(value: Any) -> str:
    """Three digits of a count in millions."""
    return f"{value / 1e6:.3g}" if is_number(value) else UNKNOWN


def milliseconds(value: Any) -> str:
    """Three digits, never in powers of ten."""
    if not is_number(value):
        return UNKNOWN
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def setting(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value) or UNKNOWN
    return str(value)


def artifact(name: Any) -> str:
    """What an artifact is called that has the name of a format, or begins with one."""
    first, comma, rest = str(setting(name)).partition(",")
    return _ARTIFACTS.get(first, first) + comma + rest


FILTERS = {
    "artifact": artifact,
    "percent": percent,
    "points": points,
    "size": size,
    "value": setting,
    "rounded": rounded,
    "short": short,
    "count": count,
    "millions": millions,
    "ms": milliseconds,
}
