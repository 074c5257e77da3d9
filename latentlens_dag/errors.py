"""What the command line tells without a traceback: what the user can mend, and that the user stopped it.

Raise `UserError` for a wrong file, field, value or state that the user caused and can put right; its
message names the value, the place, the likely cause and the way out, in one piece. The command line
prints it without a traceback and exits with 2. Anything else that is raised is a defect of ours or of
the machine and keeps its traceback: do not wrap such errors in this one.
"""

RESUME_HINT = "What was finished stays; run the same command again to go on."


class UserError(Exception):
    """A mistake of the user's, told so that it can be mended without reading any code."""


class StoppedBySignalError(Exception):
    """Work was stopped by a signal (SIGINT, SIGTERM); the message says what was finished."""

    def __init__(self, message: str, number: int) -> None:
        """Keep the signal's number; as shells do, a program that it ends leaves with 128 more."""
        super().__init__(message)
        self.number = number
