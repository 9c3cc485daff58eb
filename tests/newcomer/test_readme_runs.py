"""The README's commands, and those of the pages that go on from them, do what they say."""

import pytest

from .rules import GOES_ON_FROM
from .walks import walked_commands

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.long

PAGES = ("README.md", *(page for page in GOES_ON_FROM if GOES_ON_FROM[page] == "README.md"))
COMMANDS = walked_commands(*PAGES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_it_runs_as_written(runs_as_written, command):
    runs_as_written(command)
