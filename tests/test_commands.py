"""Every command answers --help at once, says what is wrong in one line, and has its target."""

import ast
import functools
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("benchmarks", "loaders", "pipeline", "preprocessing", "training")

# Runs a module as `python -m` does, and tells afterwards what that cost.
RUNNER = """
import resource, runpy, sys
module, sys.argv = sys.argv[1], ["", *sys.argv[2:]]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    code = stop.code
usage = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("tensorflow", "keras", "apache_beam") if name in sys.modules]
sys.stdout.flush()
print("code", code, "heavy", ",".join(heavy), "cpu", usage.ru_utime + usage.ru_stime)
"""


def runs_a_command(path: pathlib.Path) -> bool:
    """Whether the file ends in a call of `common.command.run` for its being started."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            return any(
                isinstance(call, ast.Call) and ast.unparse(call.func) in ("run", "command.run")
                for call in ast.walk(node)
            )
    return False


COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if runs_a_command(path)
)


def python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@functools.cache
def help_of(module: str) -> tuple[list[str], str]:
    """What --help prints, and the runner's last line."""
    process = python("-c", RUNNER, module, "--help")
    assert process.stderr == ""
    *lines, last = process.stdout.splitlines()
    return lines, last


def flags_of(module: str) -> set[str]:
    text = "\n".join(help_of(module)[0])
    return set(re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE))


def test_the_commands_are_found():
    assert {
        "benchmarks.model_loading",
        "loaders.convert",
        "pipeline.evaluate",
        "pipeline.experiments",
        "pipeline.export",
        "pipeline.report",
        "pipeline.run",
        "pipeline.train_recipe",
        "preprocessing.build_dataset",
        "preprocessing.verify",
        "training.doctor",
        "training.launch",
        "training.train",
    } <= set(COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_quick_and_tells_each_flag(module):
    lines, last = help_of(module)
    code, heavy, seconds = re.fullmatch(r"code (\S+) heavy (\S*) cpu (\S+)", last).groups()
    assert (code, heavy) == ("0", "")
    assert float(seconds) <= 2.0
    assert lines[0] == f"usage: python -m {module} --flag=value ..."
    assert len(lines[2]) > 20  # what the command does, in a sentence
    flags = [line for line in lines if line.startswith("  --")]
    assert flags
    for flag in flags:
        assert re.match(r" {6}\S.*\w", lines[lines.index(flag) + 1]), flag


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_flag_is_one_line_with_exit_code_2(module):
    process = python("-m", module, "--no_such_flag=1")
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"python -m {module}: error: ")
    assert "no_such_flag" in line


@pytest.fixture(scope="module")
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def targets(makefile: str) -> list[str]:
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    return phony.replace("\\\n", " ").split()


def test_make_help_has_a_line_for_each_target(makefile):
    shown = make_output("help")
    listed = [line.split(None, 1) for line in shown.splitlines()]
    assert sorted(name for name, _ in listed) == sorted(targets(makefile))
    assert all(len(text) > 5 for _, text in listed)
    # A bare `make` must not start anything.
    assert make_output() == shown


def make_output(*words: str) -> str:
    # The tests may themselves run under make, which would then say where it is.
    command = ["make", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_every_command_in_the_makefile_exists_with_its_flags(makefile):
    found = set()
    for target in targets(makefile):
        shown = make_output("--dry-run", target, "FLAGS=--extra")
        given = []
        for line in shown.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if "-m" not in words or words[words.index("-m") + 1].split(".")[0] not in PACKAGES:
                continue
            module, *flags = words[words.index("-m") + 1 :]
            found.add(module)
            assert module in COMMANDS
            given.append("--extra" in flags)
            # A command that starts another one has that one's flags behind a bare --.
            place = flags.index("--") if "--" in flags else len(flags)
            given_to = {module: flags[:place]}
            for word in flags[:place]:
                if word.startswith("--module="):
                    given_to[word.partition("=")[2]] = flags[place + 1 :]
            for command, words in given_to.items():
                used = {word[2:].split("=")[0] for word in words} - {"extra"}
                assert used <= flags_of(command), (target, used - flags_of(command))
        # Of several commands, the first takes the flags.
        assert not given or given == [True, *[False] * (len(given) - 1)]
    required = {"pipeline.run", "training.train", "pipeline.evaluate", "training.launch"}
    assert required | {"pipeline.submit"} <= found


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        ("train-mbnv1", "mobilenet_v1"),
        ("train-mbnv2", "mobilenet_v2"),
        ("train-mbnv3", "mobilenet_v3_large"),
        ("fine-tune", "fine-tune"),
        ("train-recipe", "small"),
    ],
)
def test_make_trains_by_the_recipe_of_the_target(target, recipe):
    shown = make_output("--dry-run", target, "DATA=a/data", "MODEL=b", "INIT=c", "FLAGS=--epochs=2")
    words = shlex.split(shown.replace("\\\n", " ").splitlines()[-1])
    flags = [f"--recipe={recipe}", "--data_dir=a/data", "--model_dir=b", "--init_checkpoint=c"]
    assert words[2:] == ["pipeline.train_recipe", *flags, "--epochs=2"]


def test_make_run_says_where_training_starts_if_it_is_told():
    for words, flags in (
        ([], ["--dataset=demo", "--work_dir=runs/demo"]),
        (["INIT=scratch"], ["--dataset=demo", "--work_dir=runs/demo", "--init=scratch"]),
        (
            ["INIT=a/ckpt", "DATASET=a/photos"],
            ["--dataset=a/photos", "--work_dir=runs/photos", "--init=a/ckpt"],
        ),
    ):
        shown = make_output("--dry-run", "run", *words)
        assert shlex.split(shown.splitlines()[-1])[3:] == flags
