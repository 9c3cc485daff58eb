"""The edge of every command: flags made from dataclasses, one-line errors, exit codes.

A command declares its settings as frozen dataclasses whose fields carry their help:

    @dataclasses.dataclass(frozen=True)
    class BuildConfig:
        input_dir: str = flag(help="directory of class folders")
        num_shards: int = flag(8, help="how many files to write")

    if __name__ == "__main__":
        run(build_dataset, BuildConfig)

A field may name an environment variable that gives its default where it is set: flags come before
variables, variables before defaults. A command that hands options on to another program takes them
behind a bare `--`; see `run`. Every command takes `--log_format`.

Exit codes: 0 done, 1 the run failed, 2 the command line is wrong, 75 try the same again later. A
`UserError` is one line on standard error; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

import atexit
import dataclasses
import errno
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from common import logs
from common.errors import UsageError, UserError

REQUIRED = dataclasses.MISSING


def flag(
    default: Any = REQUIRED, *, help: str, choices: Sequence[str] = (), variable: str = ""
) -> Any:
    """A dataclass field that becomes a flag of the same name.

    Args:
        default: its value where nothing is said; without one the flag is required.
        help: what it is for.
        choices: all values that it may have.
        variable: an environment variable that is taken, where it is set, before the default.
    """
    metadata = {"help": help, "choices": tuple(choices), "variable": variable}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class LogFlags:
    """What every command is told besides its own flags."""

    # The variable is looked at before any flag is parsed, and other programs have it too: what is
    # none of these words is theirs.
    log_format: str = flag(
        logs.TEXT,
        help="text for people, or json: an entry a line as Cloud Logging reads it;"
        f" ${logs.VARIABLE}=json asks for it too",
        choices=logs.FORMATS,
    )


def run(
    main: Callable[..., int | None],
    *configs: type,
    argv: Sequence[str] | None = None,
    passthrough: str = "",
) -> None:
    """Parses the command line into `configs`, calls `main` with them and exits.

    Args:
        main: what the command does; its docstring is shown by --help.
        *configs: dataclasses of its flags, in the order in which `main` takes them.
        argv: the command line; by default that of the process.
        passthrough: what the words behind a bare `--` are, for a command that takes such words.
            `main` then gets their tuple as its last argument.
    """
    try:
        code = run_to_exit_code(main, *configs, argv=argv, passthrough=passthrough)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    if "apache_beam" in sys.modules:
        # It leaves native threads behind that now and then abort a process that has done all its
        # work, while the interpreter is taken apart.
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run_to_exit_code(
    main: Callable[..., int | None],
    *configs: type,
    argv: Sequence[str] | None = None,
    passthrough: str = "",
) -> int:
    """As `run`, but returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    program = _program_name(argv[0])
    argv, behind = _split_at_dashes(argv) if passthrough else (argv, ())
    # Before the flags are parsed, since that may have something to say.
    logs.start(logs.JSON if _asks_for_json(argv) else logs.TEXT)
    if any(word in ("--help", "-h", "--helpfull") for word in argv[1:]):
        print(_help(program, main, configs, passthrough))
        return 0
    try:
        arguments = parse(argv, *configs, passthrough=passthrough)
        return main(*arguments, *([behind] if passthrough else [])) or 0
    except UserError as error:
        return _fail(program, str(error), error.exit_code, error.label)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", 130)
    except Exception as error:
        reason = explain_system_error(error)
        if reason is None:
            if not logs.is_json():
                raise
            reason = f"{error!r}"
            print(logs.entry("CRITICAL", traceback.format_exc().rstrip()), file=sys.stderr)
        return _fail(program, reason, 1)


def parse(argv: Sequence[str], *configs: type, passthrough: str = "") -> list[Any]:
    """Makes one instance of each dataclass in `configs` from the command line `argv`.

    Where `passthrough` says what may stand behind a bare `--`, an unknown flag hints at it.

    Raises:
        UsageError: an unknown flag, a wrong or missing value, a stray argument.
    """
    values = _define_flags((*configs, LogFlags))
    try:
        stray = values(list(argv))[1:]
    except flags.Error as error:
        hint = f"; behind a bare -- go {passthrough}" if passthrough else ""
        raise UsageError(f"{error} (--help lists the flags{hint})") from None
    if stray:
        raise UsageError(f"unexpected argument {stray[0]!r}: flags have the form --name=value")
    for config in configs:
        for field in dataclasses.fields(config):
            variable = field.metadata["variable"]
            if not values[field.name].present and os.environ.get(variable):
                _take_variable(values[field.name], variable)
            if field.default is REQUIRED and values[field.name].value is None:
                instead = f" (or ${variable})" if variable else ""
                raise UsageError(f"--{field.name} is required{instead}: {field.metadata['help']}")
    return [
        config(**{f.name: _to_field(values[f.name].value) for f in dataclasses.fields(config)})
        for config in configs
    ]


def to_flags(config: Any) -> list[str]:
    """The command line that `parse` turns back into `config`; defaults are left out."""
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default or value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no'}{field.name}")
        elif isinstance(value, tuple):
            words.append(f"--{field.name}={','.join(map(str, value))}")
        else:
            words.append(f"--{field.name}={value}")
    return words


def explain_system_error(error: BaseException) -> str | None:
    """One line for an error of the system below (disk, permissions), or None for a bug."""
    chain = [error]
    while (following := chain[-1].__cause__ or chain[-1].__context__) and following not in chain:
        chain.append(following)
    for link in chain:
        # TensorFlow reports a full disk by a class of its own; its name is enough, and does not
        # need the import.
        tensorflow_full_disk = type(link).__name__ == "ResourceExhaustedError" and (
            "No space left" in str(link)
        )
        if tensorflow_full_disk or getattr(link, "errno", None) == errno.ENOSPC:
            name = getattr(link, "filename", None)
            where = f" while writing {name}" if name else ""
            return f"the disk is full{where}: free some space and run the same command again"
        if isinstance(link, PermissionError) or type(link).__name__ == "PermissionDeniedError":
            return f"no permission: {link}"
    return None


def _asks_for_json(argv: Sequence[str]) -> bool:
    """Whether a command line, or else the environment, asks for JSON; the last word counts."""
    asked = os.environ.get(logs.VARIABLE, "")
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.lstrip("-") == "log_format" and name.startswith("-"):
            asked = value if equals else following
    return asked == logs.JSON


def _split_at_dashes(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], tuple(argv[place + 1 :])


def _take_variable(value: flags.Flag, variable: str) -> None:
    try:
        value.parse(os.environ[variable])
    except flags.Error as error:
        raise UsageError(f"${variable}: {error}") from None


def _define_flags(configs: Sequence[type]) -> flags.FlagValues:
    values = flags.FlagValues()
    for config in configs:
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            _define_flag(values, field, _plain_type(hints[field.name]))
    return values


def _define_flag(values: flags.FlagValues, field: dataclasses.Field, kind: Any) -> None:
    default = None if field.default is REQUIRED else field.default
    text, choices = field.metadata["help"], field.metadata["choices"]
    if choices:
        flags.DEFINE_enum(field.name, default, choices, text, flag_values=values)
    elif kind is bool:
        flags.DEFINE_bool(field.name, default, text, flag_values=values)
    elif kind is int:
        flags.DEFINE_integer(field.name, default, text, flag_values=values)
    elif kind is float:
        flags.DEFINE_float(field.name, default, text, flag_values=values)
    elif typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        parser = _TupleParser(element)
        flags.DEFINE(parser, field.name, default, text, flag_values=values)
    else:
        flags.DEFINE_string(field.name, default, text, flag_values=values)


class _TupleParser(flags.ArgumentParser):
    """Comma-separated values of one type."""

    def __init__(self, element: type):
        super().__init__()
        self._element = element

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        return tuple(self._element(word.strip()) for word in argument.split(",") if word.strip())

    def flag_type(self) -> str:
        return f"comma-separated list of {self._element.__name__}"


def _plain_type(hint: Any) -> Any:
    """`int` for `int | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _to_field(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _help(program: str, main: Callable, configs: Sequence[type], passthrough: str) -> str:
    lines = [f"usage: {program} --flag=value ...", "", (main.__doc__ or "").strip(), ""]
    for config in (*configs, LogFlags):
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            choices = field.metadata["choices"]
            kind = "{" + ",".join(choices) + "}" if choices else _kind_name(hints[field.name])
            name = f"--[no]{field.name}" if kind == "bool" else f"--{field.name}={kind}"
            if field.default is REQUIRED:
                note = " (required)"
            elif field.default is None:
                note = ""
            else:
                note = f" (default: {_shown(field.default)})"
            if field.metadata["variable"]:
                note += f" (or ${field.metadata['variable']})"
            lines.append(f"  {name}\n      {field.metadata['help']}{note}")
    if passthrough:
        lines.append(f"  -- ...\n      {passthrough}")
    return "\n".join(lines)


def _kind_name(hint: Any) -> str:
    kind = _plain_type(hint)
    if typing.get_origin(kind) is tuple:
        return f"{typing.get_args(kind)[0].__name__},..."
    return kind.__name__


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _program_name(path: str) -> str:
    """`python -m package.module` for a module, which is how commands are started."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name}" if spec and spec.name != "__main__" else os.path.basename(path)


def _fail(program: str, message: str, exit_code: int, label: str = UserError.label) -> int:
    sys.stdout.flush()
    line = f"{program}: {label}{' '.join(message.split())}"
    if logs.is_json():
        line = logs.entry("ERROR" if label else "WARNING", line, exit_code=exit_code)
    print(line, file=sys.stderr)
    return exit_code
