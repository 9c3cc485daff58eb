"""The parity gate: what is exported must agree with the model that was trained.

    from pipeline.parity import ParityFlags, ParityImages, require_parity, run_gate

The flags come without TensorFlow, so that `--help` answers at once; the rest loads it when it is
asked for.
"""

import importlib
from typing import Any

from pipeline.parity.limits import ParityFlags
from pipeline.parity.rows import ParityRow, require_parity

__all__ = ["ParityFlags", "ParityImages", "ParityRow", "require_parity", "run_gate"]

_LAZY = {"ParityImages": "images", "run_gate": "gate"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
