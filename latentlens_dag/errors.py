"""The one exception that means "the user can mend this".

Raise `UserError` for a wrong file, field, value or state that the user caused and can put right; its
message names the value, the place, the likely cause and the way out, in one piece. The command line
prints it without a traceback and exits with 2. Anything else that is raised is a defect of ours or of
the machine and keeps its traceback: do not wrap such errors in this one.
"""


class UserError(Exception):
    """A mistake of the user's, told so that it can be mended without reading any code."""
