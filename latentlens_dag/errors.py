"""Errors that the command line reports without a traceback.

Raise `UserError` for a wrong file, field, value or state that the user can correct; its message names the
value, the place, the likely cause and the remedy. The command line prints it and exits with 2. All other
errors are defects of this package or the machine and keep their traceback: do not wrap them in this one.
"""

RESUME_HINT = "What was finished stays; run the same command again to go on."


class UserError(Exception):
    """A mistake that the user can correct, with a message that suffices to do so."""


class StoppedBySignalError(Exception):
    """Work was stopped by a signal (SIGINT, SIGTERM); the message says what was finished."""

    def __init__(self, message: str, number: int) -> None:
        """Take the signal's number; the exit code is 128 more, as in shells."""
        super().__init__(message)
        self.number = number
