"""Asking the Hub for something: how often, how long to wait, and what a failure is told as.

What a newcomer gets wrong: the client waits without end, for an answer and wherever the Hub says `Retry-After`; it
repeats reading and uploads by itself, but neither a commit, a tag, nor the creation of a repository.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import http_status

TRIES = 4
LONGEST_WAIT = 300
"""Seconds that the Hub may ask us to wait; it counts requests in windows of five minutes."""
_LONGEST_SILENCE = 600.0  # seconds; a commit of many files takes the Hub minutes
_PASSING = {408, 429, 500, 502, 503, 504}

_MISSING = "no such repository"

T = TypeVar("T")


class HubError(Exception):
    """The Hub, or the way to it, failed; told without what the client said, for that may quote the user's token."""

    def __init__(self, what: str, status: int | None, cause: str, passing: bool, wait: float | None = None) -> None:
        """What was being done, the HTTP status if one came, else what went wrong, and whether to try again helps."""
        super().__init__(f"{what} failed: {f'the Hub answered with status {status}' if status else cause}.")
        self.status = status
        self.cause = cause
        """What went wrong, with the name of the client's error."""
        self.passing = passing
        self.missing = cause == _MISSING
        """Whether there is no such repository, or none that one may know of."""
        self.wait = wait
        """How many seconds the answer asked us to wait, if it did."""


def call_hub(call: Callable[[], T], what: str, tries: int = TRIES) -> T:
    """What a call of the client gives; repeated while what fails may pass.

    Args:
        call: nothing but calls of huggingface_hub; where `tries` is over 1, it does no harm to make them twice.
        what: what they do, as the beginning of a sentence: `Reading user/name`.
        tries: at most.

    Raises:
        HubError: where the last try failed, or trying again cannot help.
        UserError: where HF_HUB_OFFLINE forbids to ask, or the token cannot be sent.
    """
    for tried in range(1, tries + 1):
        try:
            with _limits():
                return call()
        except Exception as error:  # a damaged answer may break the client anywhere
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of a file here
            failure = _failure(error, what)
        if not failure.passing or tried == tries:
            break
        time.sleep(2**tried if failure.wait is None else failure.wait)
    raise failure


class _AskedTooMuch(Exception):
    """The Hub asks to wait longer than anybody wants to."""


def _failure(error: BaseException, what: str) -> HubError:
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, OfflineModeIsEnabled):
        raise UserError(f"{what} is impossible: HF_HUB_OFFLINE forbids to ask the Hub. Unset it.") from None
    if isinstance(error, UnicodeEncodeError):  # of a header
        raise UserError(f"{what} is impossible: the token (HF_TOKEN, `hf auth login`) is none of the Hub's.") from None
    causes = list(_causes(error))
    if any(isinstance(cause, _AskedTooMuch) for cause in causes):
        return HubError(what, None, f"the Hub asks to wait for more than {LONGEST_WAIT} s", passing=False)
    status = http_status(error)
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return HubError(what, status, _MISSING, passing=False)
    cause = type(causes[-1] if isinstance(error, RuntimeError) else error).__name__
    passing = status is None or status in _PASSING
    return HubError(what, status, f"no answer that can be used ({cause})", passing, _asked_wait(causes))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _asked_wait(errors: Iterable[BaseException]) -> float | None:
    """How many seconds the answer that they are about asks us to wait, if it does."""
    answers: Iterator[Any] = (getattr(error, "response", None) for error in errors)
    return next((_wait(answer.headers) for answer in answers if answer is not None), None)


def _wait(headers: Any) -> float | None:
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    if (limit := parse_ratelimit_headers(headers)) is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    after = headers.get("Retry-After", "")
    return int(after) if after.isdecimal() else None


@contextmanager
def _limits() -> Iterator[None]:
    """While it lasts, the client neither waits for an answer without end, nor as long as an answer says."""
    from huggingface_hub import get_session

    def refuse_long_waits(response: Any) -> None:
        if response.status_code in _PASSING and (_wait(response.headers) or 0) > LONGEST_WAIT:
            raise _AskedTooMuch

    session = get_session()
    timeout, session.timeout = session.timeout, _LONGEST_SILENCE
    session.event_hooks["response"].append(refuse_long_waits)
    try:
        yield
    finally:
        session.timeout = timeout
        session.event_hooks["response"].remove(refuse_long_waits)
