"""Sides that live in processes of their own, and wait for their turns."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import NamedTuple

from common.errors import UserError

_ROOT = pathlib.Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")  # a second, as /proc counts


class Turn(NamedTuple):
    """Seconds on the clock, and of processors: the process's and its children's."""

    seconds: float
    cpu_seconds: float


class Side:
    """A script that uses `benchmarks.rivals.serve`; close it to end its process."""

    def __init__(self, python: str, module: str, source: str):
        self._name = module
        self._process = subprocess.Popen(
            [python, "-m", module, source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=_ROOT,
        )
        self._answer()

    def turn(self, num_batches: int) -> Turn:
        """Lets the side make batches while the others wait."""
        self._process.stdin.write(f"{num_batches}\n")
        self._process.stdin.flush()
        self._answer()
        before = cpu_seconds(self._process.pid)
        seconds = float(self._answer())
        return Turn(seconds, cpu_seconds(self._process.pid) - before)

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> str:
        answer = self._process.stdout.readline()
        if not answer:
            raise UserError(f"{self._name} has ended with exit code {self._process.wait()}")
        return answer


def cpu_seconds(pid: int) -> float:
    """Processor time so far of a process and of its living descendants."""
    times, parents = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat") as file:
                    # The name in parentheses may hold anything; what follows it does not.
                    fields = file.read().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
            times[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    total, family = 0.0, [pid]
    while family:
        member = family.pop()
        total += times.get(member, 0.0)
        family += [child for child, parent in parents.items() if parent == member]
    return total
