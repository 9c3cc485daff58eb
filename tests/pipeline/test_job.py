"""The entry point of a container, with commands that do as they are told."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pipeline.job import own_and_behind
from tests.pipeline.conftest import ROOT

# A command that notes its start, then acts as the script says that its start of that number does.
SCRIPTED = """
import os, pathlib, signal, sys, time
notes = pathlib.Path(sys.argv[1])
start = len(list(notes.glob("start-*")))
def begin():
    draft = notes / "draft"
    draft.write_text(str(os.getpid()))
    draft.rename(notes / f"start-{start}")
def until_asked(code):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    begin()
    time.sleep(60)
acts = sys.argv[2].split(";")
if __name__ == "__main__":
    exec(acts[min(start, len(acts) - 1)])
"""
SECONDS = 60


@pytest.fixture
def start(tmp_path):
    """Starts a job whose command acts by a script, and ends what is left of it."""
    for package in ("training", "notes"):
        (tmp_path / package).mkdir()
    # Found before the project's own package by the child, which is another process.
    (tmp_path / "training/__init__.py").write_text(f"__path__.append({str(ROOT / 'training')!r})\n")
    (tmp_path / "training/scripted.py").write_text(SCRIPTED)
    started = []

    def begin(script: str, *flags: str) -> subprocess.Popen:
        words = ["training.scripted", str(tmp_path / "notes"), script]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.job", *flags, *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: pathlib.Path) -> int:
    """Waits for a start; the process number that it noted."""
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def starts(tmp_path) -> int:
    return len(list((tmp_path / "notes").glob("start-*")))


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_command_that_ends_ends_the_job_with_its_code(start, tmp_path, code):
    process = start(f"begin()\nsys.exit({code})")
    process.communicate(timeout=SECONDS)
    assert process.returncode == code and starts(tmp_path) == 1


def test_a_command_that_asks_for_it_is_started_again(start, tmp_path):
    process = start("begin()\nsys.exit(75);begin()")
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and starts(tmp_path) == 2
    assert "asks to be started again: starting it again in 1 s (1 of at most 20 times)" in out


def test_a_command_that_was_killed_is_started_again_and_not_for_ever(start, tmp_path):
    process = start("begin()\nos.kill(os.getpid(), signal.SIGKILL)", "--max_restarts=1")
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGKILL and starts(tmp_path) == 2
    assert "the command was ended by SIGKILL; it was started again 1 times" in out


def test_a_command_that_crashes_is_not_started_often(start, tmp_path):
    process = start("begin()\nos.kill(os.getpid(), signal.SIGSEGV)")
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGSEGV and starts(tmp_path) == 3
    assert "the command was ended by SIGSEGV; it was started again 2 times" in out


def test_the_form_of_the_log_is_handed_on(start, tmp_path):
    process = start("begin()\nprint(os.environ['LOG_FORMAT'])", "--log_format=json")
    out, _ = process.communicate(timeout=SECONDS)
    assert out.splitlines() == ["json"]


@pytest.mark.parametrize("code", [0, 75])
def test_who_is_asked_to_end_is_not_started_again(start, tmp_path, code):
    process = start(f"until_asked({code})")
    wait_for(tmp_path / "notes/start-0")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == code and starts(tmp_path) == 1


def test_a_signal_between_two_starts_ends_the_job(start, tmp_path):
    process = start("begin()\nsys.exit(75)")
    for line in process.stdout:
        if "(3 of at most" in line:  # and seconds away
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 75 and starts(tmp_path) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child outlives its parent")
def test_the_command_does_not_outlive_the_job(start, tmp_path):
    process = start("until_asked(0)")
    child = wait_for(tmp_path / "notes/start-0")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + SECONDS
    while pathlib.Path(f"/proc/{child}/cmdline").exists():
        if not pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
            break  # it has ended, and nobody has asked how
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["os.path"],
        ["training.nothing"],
        ["training"],
        ["training.trainer"],  # no command: it would do nothing, and be taken for done
        ["--max_restarts=-1", "training.train"],
        ["--healthy_seconds=0", "training.train"],
    ],
)
def test_what_is_no_command_is_one_line(words):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.job", *words],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("python -m pipeline.job: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "own", "behind"),
    [
        (["pipeline.run", "--work_dir=a"], [], ["pipeline.run", "--work_dir=a"]),
        (["--max_restarts=3", "a.b", "--", "c"], ["--max_restarts=3"], ["a.b", "--", "c"]),
        (["--max_restarts", "3", "a.b"], ["--max_restarts", "3"], ["a.b"]),
        (["--help"], ["--help"], []),
        (["--max_restarts=3", "--", "a.b"], ["--max_restarts=3"], ["a.b"]),
    ],
)
def test_its_own_flags_stand_before_the_command(words, own, behind):
    assert own_and_behind(["job", *words]) == ["job", *own, "--", *behind]
