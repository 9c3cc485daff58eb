"""Does what a page says, in a directory of its own, one command after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

from tests.checkout import copy_checkout

from .pages import Command, all_commands, page_names
from .rules import (
    GIVEN,
    GOES_ON_FROM,
    STARTS_FROM_NOTHING,
    Changed,
    Endless,
    NotHere,
    Reference,
    Rule,
    rule_of,
)

SECONDS = 900

# Flags that name what a command leaves behind, below the page's directory.
_LEAVES = re.compile(r"--(?:output|output_dir|model_dir|export_dir|work_dir|json)=(?!/|gs:)(\S+)")

# Runs one command where the one before it left off, variables and directory kept.
_SCRIPT = """
set -e -o pipefail
[ -f "$SHELL_STATE/variables" ] && . "$SHELL_STATE/variables"
cd "$(cat "$SHELL_STATE/directory")"
set -a
. "$SHELL_STATE/command"
set +a
pwd > "$SHELL_STATE/directory"
export -p > "$SHELL_STATE/variables"
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        code: its exit code.
        said: the end of what it printed.
        missing: what it was to leave behind and has not.
    """

    code: int
    said: str
    missing: tuple[str, ...] = ()


class NotThere(Exception):
    """Reference data that a command needs are not on this machine."""


class Shell:
    """A shell that remembers variables and directory, in an environment without surprises."""

    def __init__(self, home: pathlib.Path, state: pathlib.Path, variables: dict[str, str]):
        self._state = state
        self._variables = {**variables, "SHELL_STATE": str(state)}
        state.mkdir()
        (state / "directory").write_text(str(home))

    def run(self, text: str) -> Outcome:
        with self._started(text) as process:
            try:
                said, _ = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                return Outcome(-1, f"not done after {SECONDS} seconds")
        return Outcome(process.returncode, said[-4000:])

    def serve(self, text: str, says: str) -> Outcome:
        """Runs a command that does not end by itself until it says `says`; then Ctrl-C."""
        said = ""
        with self._started(text) as process:
            for line in process.stdout:
                said += line
                if says in line:
                    os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=SECONDS)
        return Outcome(process.returncode if says in said else -1, said[-4000:])

    @contextlib.contextmanager
    def _started(self, text: str):
        (self._state / "command").write_text(f"{text}\n")
        process = subprocess.Popen(
            ["bash", "-c", _SCRIPT],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # What the command left running too; it is a session of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()


class Walks:
    """All pages, each walked as far as it was asked for, and once only."""

    def __init__(self, work: pathlib.Path, bucket_url: str, reference: pathlib.Path):
        self._work = work
        self._bucket_url = bucket_url
        self._reference = reference
        self._shells: dict[str, Shell] = {}
        self._outcomes: dict[Command, Outcome | NotThere] = {}

    def outcome(self, command: Command) -> Outcome:
        """Runs the page's commands up to this one.

        Raises:
            NotThere: this one needs what is not there.
        """
        for one in all_commands():
            if one.page == command.page and one.line <= command.line:
                self._walk(one)
        outcome = self._outcomes[command]
        if isinstance(outcome, NotThere):
            raise outcome
        return outcome

    def _finish(self, page: str) -> pathlib.Path:
        for one in all_commands():
            if one.page == page:
                self._walk(one)
        return self._home(page)

    def _walk(self, command: Command) -> None:
        rule = rule_of(command)
        if command in self._outcomes or isinstance(rule, NotHere):
            return
        if command.page not in self._shells:
            self._begin(command.page)
        try:
            self._outcomes[command] = self._run(command, rule)
        except NotThere as reason:
            self._outcomes[command] = reason

    def _run(self, command: Command, rule: Rule | None) -> Outcome:
        home, shell = self._home(command.page), self._shells[command.page]
        if isinstance(rule, Reference):
            self._lay(rule, home)
        text = typed(command, rule)
        says = rule.says if isinstance(rule, Endless) else ""
        outcome = shell.serve(text, says) if says else shell.run(text)
        left = [] if "--dry_run" in text else _LEAVES.findall(command.plain)
        missing = (name for name in left if not (home / name).exists())
        return dataclasses.replace(outcome, missing=tuple(missing))

    def _home(self, page: str) -> pathlib.Path:
        return self._work / page.replace("/", "-").removesuffix(".md") / "mobilenet-pipeline"

    def _begin(self, page: str) -> None:
        """Lays out what is there before the page's first command."""
        home = self._home(page)
        home.mkdir(parents=True)
        copy_checkout(home)
        _lay_environment(home)
        if page in GOES_ON_FROM:
            before = self._finish(GOES_ON_FROM[page])
            left = {path.name for path in before.iterdir()} - {".venv"}
            for name in left - {path.name for path in home.iterdir()}:
                _copy(before / name, home / name)
        for name, (other, there) in GIVEN.get(page, {}).items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to((self._finish(other) if other else home) / there)
        self._shells[page] = Shell(home, home.parent / "shell", self._variables(page, home))

    def _variables(self, page: str, home: pathlib.Path) -> dict[str, str]:
        own = [str(pathlib.Path(prefix) / "bin") for prefix in {sys.prefix, sys.base_prefix}]
        path = [part for part in os.environ["PATH"].split(os.pathsep) if part not in own]
        if page not in STARTS_FROM_NOTHING:
            path.insert(0, str(home / ".venv" / "bin"))
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        user = home.parent / "user"
        user.mkdir()
        return {
            **kept,
            "PATH": os.pathsep.join(path),
            "HOME": str(user),
            "STORAGE_EMULATOR_HOST": self._bucket_url,
        }

    def _lay(self, rule: Reference, home: pathlib.Path) -> None:
        """Puts real weights and photos where the command looks for them."""
        for name, place in rule.files:
            source = self._reference / place
            found = list(source.parent.glob(f"{source.name}.*"))
            if not found:
                raise NotThere(f"{place} of the reference data (MOBILENET_TEST_DATA) is not here")
            for path in found:
                link = home / f"{name}{path.name.removeprefix(source.name)}"
                if not link.exists():
                    link.symlink_to(path)
        if rule.shards and not (home / rule.shards).exists():
            photos = self._reference / "imagenet_sample"
            if not photos.is_dir():
                raise NotThere(f"{photos} is not here (MOBILENET_TEST_DATA)")
            build = ["python", "-m", "preprocessing.build_dataset", f"--source={photos}"]
            build += [f"--output_dir={rule.shards}", "--split=validation"]
            built = self._shells[rule.page].run(shlex.join(build))
            if built.code:
                raise RuntimeError(built.said)


def _copy(source: pathlib.Path, to: pathlib.Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, symlinks=True)
    else:
        shutil.copy2(source, to, follow_symlinks=False)


def _lay_environment(home: pathlib.Path) -> None:
    """A `.venv` like the one that `make setup` makes: this very one, under another name.

    Setting up is tested by `tests/long/test_fresh_clone.py`, at some cost.
    """
    environment = home / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
        if os.path.exists(os.path.join(sys.prefix, name)):
            (environment / name).symlink_to(os.path.join(sys.prefix, name))
    (environment / ".ready").touch()


def typed(command: Command, rule: Rule | None) -> str:
    """What is really given to the shell."""
    if command.language == "python":
        return f"python -c {shlex.quote(command.text)}"
    text = command.text
    if isinstance(rule, Changed) and rule.first:
        text = re.sub(r"python -m \S+", rf"\g<0> {rule.first}", text, count=1)
    if isinstance(rule, (Changed, Endless)) and rule.added:
        text = re.sub(r"\s+#\s.*$", "", text) + f" {rule.added}"
    return text


def walked_commands(*pages: str) -> list[Command]:
    """What no rule takes out of these pages, in their order; `*` stands for any name."""
    return [
        command
        for pattern in pages
        for page in page_names()
        if fnmatch.fnmatch(page, pattern)
        for command in all_commands()
        if command.page == page and not isinstance(rule_of(command), NotHere)
    ]
