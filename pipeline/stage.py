"""A stage of a run as data: what it reads, what it writes, and its settings.

A stage hands over files with a manifest, never objects in memory, so that each can be run by its
command alone, by `pipeline.run`, or by a scheduler on another machine.
"""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from collections.abc import Callable
from typing import Any

from common.command import to_flags


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the line.

    Attributes:
        name: what people call it.
        command: module and function, 'package.module:function'.
        configs: the function's arguments.
        inputs: files whose content decides whether the stage is current.
        outputs: the manifests that the stage writes last.
        owns: all that it writes, as patterns below the run's directory; moved aside before it
            runs under other settings.
        folders: directories or tars of photos that it reads, which are too large to be hashed.
    """

    name: str
    command: str
    configs: tuple[Any, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """What to type to run the stage alone."""
        module = self.command.split(":")[0]
        words = (word for config in self.configs for word in to_flags(config))
        return shlex.join(["python", "-m", module, *words])

    def function(self) -> Callable[..., None]:
        module, name = self.command.split(":")
        return getattr(importlib.import_module(module), name)
