"""The commands that README and docs show: what a newcomer types, page by page and in order."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator

from tests.checkout import ROOT

PAGES = ("README.md", "docs/*.md", "infra/*/README.md")

# Languages whose blocks are typed, and those that are not: files, and what commands print.
TYPED = ("shell", "python")
OTHERS = ("", "dockerfile", "hcl", "json", "text", "yaml")

# What a line begins with that is to be typed, wherever it stands.
_COMMAND = re.compile(
    r"\s*(?:\$ |python -m [\w.]+(?: -|$)|make(?: |$)|(?:uv )?pip install"
    r"|(?:docker|gcloud|kfp|kubectl|terraform) )"
)
_FENCE = re.compile(r"(?P<indent> *)```(?P<language>.*)")
# Words after which a line need not be the end of a command, quotes aside.
_OPENS = re.compile(r"<<|\b(?:for|while|until|if|case|function)\b|[({]")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: the file it stands in, from the root.
        line: the number of its first line of code.
        language: as the fence says; empty without one.
        fenced: whether it has a fence: others are indented by four spaces.
        text: the code.
    """

    page: str
    line: int
    language: str
    fenced: bool
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """What is typed at once: a command of the shell, or a whole block of Python.

    Attributes:
        page: the file it stands in, from the root.
        line: the number of its first line.
        language: "shell" or "python".
        text: as written.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def plain(self) -> str:
        """One line, without comments and line ends; by this rules find it."""
        if self.language == "python":
            return " ".join(self.text.split())
        words = shlex.split(self.text.replace("\\\n", " "), comments=True)
        return " ".join(" ".join(words).split())

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line} {self.plain[:60]}"


def page_names() -> list[str]:
    found = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """All blocks of code of a page, in order."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        indented = lines[number].startswith("    ") and not (number and lines[number - 1].strip())
        if fence:
            end = f"{fence['indent']}```"
            first, number = number + 1, lines.index(end, number + 1)
            code = textwrap.dedent("\n".join(lines[first:number]))
            yield Block(page, first + 1, fence["language"].strip(), True, f"{code}\n")
        elif indented:
            first = number
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number]):
                number += 1
            code = textwrap.dedent("\n".join(lines[first:number]))
            yield Block(page, first + 1, "", False, f"{code.rstrip()}\n")
            continue
        number += 1


def looks_typed(block: Block) -> bool:
    """Whether a block that is not marked as typed shows a command all the same."""
    return any(_COMMAND.match(line) for line in block.text.splitlines())


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block of TYPED."""
    if block.language == "python":
        yield Command(block.page, block.line, "python", block.text)
        return
    begun: list[str] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if not begun and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun.append(line)
        text = "\n".join(begun)
        if line.endswith("\\") or not _is_whole(text):
            continue
        yield Command(block.page, number + 1 - len(begun), "shell", text)
        begun = []
    if begun:
        raise ValueError(f"{block.page}:{block.line}: a command does not end: {text}")


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:  # a quotation that goes on
        return False
    if not _OPENS.search(text):
        return True
    read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    return read.returncode == 0 and not read.stderr  # of a here-document it only warns


@functools.cache
def all_commands() -> tuple[Command, ...]:
    """What all pages together show."""
    return tuple(
        command
        for page in page_names()
        for block in blocks_of(page, read(page))
        if block.language in TYPED
        for command in commands_of(block)
    )
