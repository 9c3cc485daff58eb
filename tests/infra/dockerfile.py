"""Reads Dockerfiles and .dockerignore as far as the tests ask."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def flags(self) -> dict[str, str]:
        """What stands before the arguments, as in COPY --from=wheel."""
        flags = (word[2:].partition("=") for word in self.words if word.startswith("--"))
        return {name: value for name, _, value in flags}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What follows a FROM; `base` is an image, or the stage before it."""

    name: str
    image: str
    base: Stage | None
    own: tuple[Instruction, ...]

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """With those that it inherits."""
        return (*(self.base.instructions if self.base else ()), *self.own)

    @property
    def origin(self) -> str:
        """The image that all of it stands on."""
        return self.base.origin if self.base else self.image

    def last(self, name: str) -> str:
        found = [each.text for each in self.instructions if each.name == name]
        return found[-1] if found else ""

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def command(self) -> list[str]:
        """What a container runs that is given no arguments."""
        return json.loads(self.last("ENTRYPOINT")) + json.loads(self.last("CMD"))

    def variables(self) -> dict[str, str]:
        words = (word for each in self.all("ENV") for word in each.words)
        return dict(word.split("=", 1) for word in words)


def read_stages(text: str) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            image, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", instruction.text).groups()
            stages[name] = Stage(name, image, stages.get(image), ())
            continue
        stage = list(stages.values())[-1]
        stages[stage.name] = dataclasses.replace(stage, own=(*stage.own, instruction))
    return stages


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for whole in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if whole.strip():
            name, _, rest = whole.strip().partition(" ")
            yield Instruction(name, rest.strip())


class Ignore:
    """Which files of a directory Docker is sent.

    A pattern takes in what is below a directory that it names, and the last one that fits decides.
    """

    def __init__(self, text: str):
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (not line.startswith("!"), re.compile(_expression(line.lstrip("!"))))
            for line in lines
            if line and not line.startswith("#")
        ]

    def lets_in(self, path: str) -> bool:
        parents = [str(parent) for parent in pathlib.PurePosixPath(path).parents][:-1]
        is_out = False
        for leaves_out, expression in self._rules:
            if any(expression.fullmatch(each) for each in (path, *parents)):
                is_out = leaves_out
        return not is_out


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern.strip("/"))
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        wild.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts
    )
