import dataclasses
import errno
import logging
import os
import subprocess
import sys

import pytest

from common.command import flag, parse, run_to_exit_code, to_flags
from common.errors import UsageError, UserError
from preprocessing.build_dataset import BuildConfig
from training.config import AugmentationFlags, DataFlags, ModelFlags, OptimizationFlags, RunFlags


@dataclasses.dataclass(frozen=True)
class Paint:
    source: str = flag(help="what is painted")
    coats: int = flag(2, help="how many layers")
    thickness: float = flag(0.5, help="millimetres")
    glossy: bool = flag(True, help="shines")
    colours: tuple[str, ...] = flag(("red", "green"), help="in order")
    corners: tuple[float, ...] = flag((0.0, 1.0), help="numbers")
    finish: str = flag("matt", help="surface", choices=("matt", "satin"))
    limit: int | None = flag(None, help="no limit by default")

    def __post_init__(self):
        if self.coats < 1:
            raise UsageError(f"--coats must be at least 1, not {self.coats}")


@dataclasses.dataclass(frozen=True)
class Brush:
    width: int = flag(10, help="in millimetres")


def paint(config: Paint) -> None:
    """Paints a wall."""


@pytest.fixture
def outcome(capsys):
    """Exit code, standard output and standard error of a command in this process."""

    def call(main, *words, config=Paint, passthrough=""):
        argv = ["paint.py", *words]
        code = run_to_exit_code(main, config, argv=argv, passthrough=passthrough)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize(
    "config",
    [
        Paint("wall"),
        Paint("a b=c", 3, 1e-07, False, ("blue",), (-1.5, 2.0), "satin", 7),
        Paint("", colours=(), corners=(0.1,)),
        DataFlags("data", eval_split=""),
        AugmentationFlags(input_range=(0.0, 1.0), mixup_alpha=0.2),
        ModelFlags(width_multiplier=0.25, num_classes=3, dropout_rate=0.0),
        OptimizationFlags(lr=0.1 + 0.2, ma_decay_rate=0.0, optimizer_name="sgd"),
        RunFlags("run", seed=5, allow_changes=True),
        BuildConfig("in", "out", holdout_fraction=0.125),
    ],
    ids=lambda config: type(config).__name__,
)
def test_to_flags_is_what_parse_turns_back_into_the_same_settings(config):
    assert parse(["x", *to_flags(config)], type(config)) == [config]


def test_flags_at_their_default_are_left_out():
    assert to_flags(Paint("wall")) == ["--source=wall"]
    assert to_flags(Paint("wall", glossy=False, coats=4)) == [
        "--source=wall",
        "--coats=4",
        "--noglossy",
    ]


def test_several_dataclasses_share_one_command_line():
    assert parse(["x", "--width=3", "--source=wall"], Paint, Brush) == [Paint("wall"), Brush(3)]


@pytest.mark.parametrize(
    ("words", "behind"),
    [
        ([], ()),
        (["--"], ()),
        (
            ["--", "--width=4", "up", "--", "", "--no_such=a b"],
            ("--width=4", "up", "--", "", "--no_such=a b"),
        ),
        (["--", "--help"], ("--help",)),
    ],
)
def test_words_behind_a_bare_dash_dash_are_handed_on_as_they_are(outcome, words, behind):
    calls = []
    words = ["--width=3", *words]
    assert outcome(lambda *all: calls.append(all), *words, config=Brush, passthrough="x")[0] == 0
    assert calls == [(Brush(3), behind)]


@pytest.mark.parametrize("words", [["up"], ["up", "--", "down"], ["--width=3", "up", "--"]])
def test_a_word_before_the_dash_dash_is_a_stray_one(outcome, words):
    code, _, err = outcome(lambda *_: None, *words, config=Brush, passthrough="x")
    assert code == 2 and "unexpected argument 'up'" in err


def test_an_unknown_flag_hints_at_the_dash_dash_where_it_means_something(outcome):
    for passthrough in ("", "words for the painter"):
        code, _, err = outcome(
            lambda *_: None, "--project=p", config=Brush, passthrough=passthrough
        )
        assert code == 2 and "'project'" in err and err.count("\n") == 1
        assert ("behind a bare -- go words for the painter" in err) == bool(passthrough)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--source is required: what is painted"),
        (["--source=wall", "--colour=red"], "'colour'"),
        (["--source=wall", "--coats=two"], "coats=two"),
        (["--source=wall", "--coats=1.5"], "coats=1.5"),
        (["--source=wall", "--thickness=thin"], "thickness=thin"),
        (["--source=wall", "--glossy=perhaps"], "glossy=perhaps"),
        (["--source=wall", "--corners=0,x"], "corners=0,x"),
        (["--source=wall", "--finish=rough"], "<matt|satin>"),
        (["--source=wall", "--coats"], "coats"),
        (["--source=wall", "extra"], "unexpected argument 'extra'"),
        (["wall", "--coats=1"], "unexpected argument 'wall'"),
        (["--source=wall", "--", "--coats=1"], "unexpected argument '--coats=1'"),
        (["--source=wall", "--coats=0"], "--coats must be at least 1, not 0"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(outcome, words, told):
    code, out, err = outcome(paint, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and ": error: " in err
    assert told in err


def test_a_user_error_is_one_line_and_exit_code_1(outcome):
    def main(config):
        raise UserError(f"{config.source} is\n wet:  wait")

    code, out, err = outcome(main, "--source=wall")
    assert (code, out) == (1, "")
    assert err.endswith(": error: wall is wet: wait\n") and err.count("\n") == 1


def test_a_bug_keeps_its_traceback(outcome):
    def main(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outcome(main, "--source=wall")


def test_the_exit_code_of_the_command_is_passed_on(outcome):
    assert outcome(lambda _: 3, "--source=wall")[0] == 3
    assert outcome(lambda _: None, "--source=wall")[0] == 0


def test_an_interrupt_is_exit_code_130(outcome):
    def main(config):
        raise KeyboardInterrupt

    assert outcome(main, "--source=wall")[0] == 130


def test_a_full_disk_is_one_line_wherever_it_is_noticed(outcome):
    def write(_):
        raise OSError(errno.ENOSPC, "No space left on device", "wall.png")

    def wrap(config):
        try:
            write(config)
        except OSError as error:
            raise RuntimeError("library") from error

    def really(_):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    for main in (write, wrap, really):
        code, _, err = outcome(main, "--source=wall")
        assert code == 1 and err.count("\n") == 1
        assert "the disk is full" in err
    assert "wall.png" in outcome(write, "--source=wall")[2]


def test_a_full_disk_that_tensorflow_reports_is_one_line(outcome):
    def main(_):
        import tensorflow as tf

        raise tf.errors.ResourceExhaustedError(None, None, "/x/y; No space left on device")

    code, _, err = outcome(main, "--source=wall")
    assert code == 1 and "the disk is full" in err


def test_a_missing_permission_is_one_line(outcome):
    def main(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/wall")

    code, _, err = outcome(main, "--source=wall")
    assert code == 1 and "no permission" in err and "/wall" in err


def test_help_names_every_flag_with_type_and_default_and_does_not_run(outcome):
    def main(_):
        """Paints a wall."""
        raise AssertionError("run for --help")

    code, out, err = outcome(main, "--help")
    assert (code, err) == (0, "")
    for text in (
        "Paints a wall.",
        "--source=str\n      what is painted (required)",
        "--coats=int\n      how many layers (default: 2)",
        "--[no]glossy\n      shines (default: True)",
        "--colours=str,...\n      in order (default: red,green)",
        "--finish={matt,satin}\n      surface (default: matt)",
        "--limit=int\n      no limit by default\n",
    ):
        assert text in out + "\n"


def test_help_tells_what_goes_behind_the_dash_dash(outcome):
    _, out, _ = outcome(
        lambda *_: None, "--help", config=Brush, passthrough="words for the painter"
    )
    assert out.endswith("  -- ...\n      words for the painter\n")
    assert "  --\n" not in outcome(lambda _: None, "--help", config=Brush)[1]


@pytest.mark.parametrize(
    "module", ["training.train", "loaders.convert", "preprocessing.build_dataset"]
)
def test_help_loads_none_of_the_big_libraries(module):
    program = (
        f"import sys, runpy\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "big = {'tensorflow', 'keras', 'apache_beam', 'pyarrow', 'matplotlib'}\n"
        "assert not big & set(sys.modules), big & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m {module}" in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    program = (
        "import dataclasses, common.command as c\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class C:\n    n: int = c.flag(1, help='x')\n"
        "c.run(lambda _: print('line\\n' * 100000), C)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Commands set up logging for a process of their own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
