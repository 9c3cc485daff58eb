"""The wheel in a fresh environment of each Python, as someone gets it who has no checkout."""

import json
import pathlib
import shlex
import subprocess

import pytest

from tests.checkout import ROOT

from .environments import PYTHONS, content
from .extras import EXTRAS, NOTHING_ON, ONLY_RESOLVED

pytestmark = pytest.mark.long

IMPORT_ALL = """
import importlib, json, sys
failed = {}
for name in sys.stdin.read().split():
    try:
        module = importlib.import_module(name)
        assert module.__file__.startswith(sys.prefix), module.__file__
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""


def modules_of(wheel: pathlib.Path) -> list[str]:
    names = [name for name in content(wheel) if name.endswith(".py")]
    return sorted(name[:-3].replace("/", ".").removesuffix(".__init__") for name in names)


def line_of_make_run() -> list[str]:
    """What `make run` starts, without the Python in front."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    python, *words = shlex.split(shown.stdout.splitlines()[-1])
    assert python.endswith("/python") and words[:2] == ["-m", "pipeline.run"]
    return words


def version_of(environment) -> str:
    return environment.run("-c", "import sys; print(*sys.version_info[:2], sep='.')").strip()


def test_every_requirement_is_met(environment):
    environment.check()


def test_every_module_can_be_imported_without_extras(environment, built, tmp_path):
    names = modules_of(built.wheel)
    assert {"common.files", "pipeline.run", "training.train"} <= set(names)
    (tmp_path / "names").write_text("\n".join(names))
    with (tmp_path / "names").open() as listed:
        done = subprocess.run(
            [environment.python, "-I", "-c", IMPORT_ALL],
            cwd=tmp_path,
            stdin=listed,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_the_line_of_make_run_trains_from_it(environment, tmp_path):
    # The whole of it on the newest Python; on the others one epoch shows the same.
    whole = version_of(environment) == PYTHONS[-1]
    words = [*line_of_make_run(), *([] if whole else ["--train_flags=--epochs=1"])]
    said = environment.run(*words, cwd=tmp_path)
    work = tmp_path / "runs" / "demo"
    assert said.rstrip().endswith(f"report: {work / 'report.html'}")
    assert (work / "report.html").stat().st_size > 100_000
    assert len(list((work / "export").iterdir())) > 5
    evaluation = json.loads((work / "evaluation.json").read_text())
    assert evaluation["num_examples"] == 502
    assert evaluation["top_1"] > (0.95 if whole else 0.3)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_installed_and_leaves_the_rest_as_it_was(environment, extra):
    # On top of the wheel alone: with equal constraints that is what a fresh environment would
    # hold, and `back_to_base` fails where it is not.
    if extra in ONLY_RESOLVED:
        environment.install(extra, "--dry-run")
        return
    before = environment.packages()
    try:
        environment.install(extra)
        environment.check()
        added = environment.packages() - before
        if version_of(environment) in NOTHING_ON.get(extra, ()):
            assert added == set()
        else:
            assert added
            environment.run("-c", "\n".join(f"import {name}" for name in EXTRAS[extra]))
    finally:
        environment.back_to_base()
