"""What to say about the values of a defs.yaml that do not fit the fields of a component."""

import re
from typing import Any

from pydantic import ValidationError

_FIELD = re.compile(r"[a-z][a-z0-9_]*")
QUOTES = "YAML reads yes, no, on and off as booleans and digits as numbers: put the text in quotes."
_NO_FIELDS = {"attributes", "str", "int", "float", "bool"}


def wrong_values(error: ValidationError, place: str) -> str:
    """The values that do not fit, with their fields.

    Args:
        error: of the model of a component.
        place: the component and its file, for what Dagster gives no place of.
    """
    messages: dict[tuple[str, str], str] = {}
    for problem in error.errors():
        path, _, known = ".".join(map(str, problem["loc"])).partition(" at ")  # where Dagster knows it
        field = ".".join(part for part in path.split(".") if _FIELD.fullmatch(part) and part not in _NO_FIELDS)
        value = "" if problem["type"] == "missing" else f": {shortened(str(problem['input']))}"
        message = f"`{field or 'attributes'}{value}` of {known or place}: {problem['msg']}.{_quoting_hint(problem)}"
        messages.setdefault((field, known), message)
    # A field that may be a text or have fields of its own is wrong in one of these, not because it is no text.
    return " ".join(
        message
        for (field, known), message in messages.items()
        if not any(inner.startswith(f"{field}.") and other == known for inner, other in messages)
    )


def shortened(text: str) -> str:
    """A text on one line of at most 80 characters."""
    text = " ".join(text[:1000].split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _quoting_hint(error: Any) -> str:
    """The remedy for a text that YAML reads as a number or boolean."""
    return f" {QUOTES}" if error["type"] == "string_type" and isinstance(error["input"], float) else ""
