"""The commands of all other pages, among them those on each place where this runs."""

import pytest

from .pages import page_names
from .test_readme_runs import PAGES as README_PAGES
from .walks import walked_commands

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.long

COMMANDS = walked_commands(*(page for page in page_names() if page not in README_PAGES))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_it_runs_as_written(runs_as_written, command):
    runs_as_written(command)
