"""The two kinds of failure that a command reports without a traceback."""


class UserError(Exception):
    """Bad input: a value, file or option that the user can mend. Commands exit with code 2.

    The message says what was wrong, where, and the command or option that mends it.
    """

    exit_code = 2


class RunError(Exception):
    """A run that began and could not be finished, such as a loss that became NaN. Commands exit with code 1."""

    exit_code = 1
