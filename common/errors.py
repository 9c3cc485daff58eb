"""The mistakes that a user can mend.

A message says what is wrong, with the path or the value, and what to do about it. Commands print it
as one line (see `common.command`); anything else that escapes is a bug and keeps its traceback.
"""


def first_line(error: BaseException) -> str:
    """What a foreign error says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


RESUME_ME = 75  # EX_TEMPFAIL of sysexits.h: try the same again


class UserError(Exception):
    """A run cannot go on because of something outside the program: exit code 1."""

    exit_code = 1
    label = "error: "  # what the line begins with


class UsageError(UserError, ValueError):
    """A flag or a configuration field has a wrong value: exit code 2."""

    exit_code = 2


class Unreachable(UserError):
    """A service does not answer just now; later the same command goes on: exit code 75."""

    exit_code = RESUME_ME
