"""The mistakes that a user can mend.

A message says what is wrong, with the path or the value, and what to do about it. Commands print it
as one line (see `common.command`); anything else that escapes is a bug and keeps its traceback.
"""


class UserError(Exception):
    """A run cannot go on because of something outside the program: exit code 1."""

    exit_code = 1


class UsageError(UserError, ValueError):
    """A flag or a configuration field has a wrong value: exit code 2."""

    exit_code = 2
