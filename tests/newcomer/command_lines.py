"""Whether the words of a command of this project are ones that it takes, without running it."""

from __future__ import annotations

import pathlib
import re
import runpy
import shlex
import subprocess
import warnings
from collections.abc import Iterator
from unittest import mock

from common import command
from tests.checkout import ROOT

PACKAGES = ("benchmarks", "loaders", "pipeline", "preprocessing", "training")
JOB = "pipeline.job"  # its first word is the command that it starts; so it is in a container
_MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")


def check_module(module: str, words: list[str]) -> None:
    """Parses the words as `python -m module` does, and goes no further.

    Raises:
        UsageError: it does not take them.
        ImportError: there is no such module.
    """
    parsed: list[tuple] = []

    def parse(_main, *configs, passthrough="", **_):
        ours, behind = (words, [])
        if passthrough and "--" in words:
            place = words.index("--")
            ours, behind = words[:place], words[place + 1 :]
        found = command.parse([module, *ours], *configs, passthrough=passthrough)
        parsed.append((found, behind))

    with mock.patch.object(command, "run", parse), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy's, that the module has been imported before
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    if not parsed:
        raise ValueError(f"{module} is no command")
    ((found, behind),) = parsed
    if module == "training.launch":
        check_module(found[0].module, behind)


def check_shell(text: str, root: pathlib.Path = ROOT) -> int:
    """Looks through a command of the shell for commands of this project; tells how many there are.

    Raises:
        Exception: one does not exist, or does not take its words.
    """
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    number = 0
    for line in _started_by_make(words[1:], root) if words[0] == "make" else [words]:
        module, *flags = _of_this_project(line)
        if module:
            number += 1
        if module and "--help" not in flags:
            check_module(module, flags)
    return number


def _of_this_project(words: list[str]) -> list[str]:
    """The module and its words, whoever starts it; an empty string where it is not ours."""
    program = words[0].rpartition("/")[2] if words else ""
    if program.startswith("python") and "-m" in words:
        found = words[words.index("-m") + 1 :]
        if found[0] == JOB:
            found = found[1:]
    elif words[:2] == ["docker", "run"]:
        places = [number for number, word in enumerate(words) if _MODULE.fullmatch(word)]
        found = words[places[0] :] if places else []
    else:
        found = []
    return found if found and found[0].partition(".")[0] in PACKAGES else [""]


def _started_by_make(words: list[str], root: pathlib.Path) -> Iterator[list[str]]:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode:
        raise ValueError(shown.stderr)
    for line in shown.stdout.replace("\\\n", " ").splitlines():
        yield shlex.split(line)
