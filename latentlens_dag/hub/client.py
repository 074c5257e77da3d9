"""Calls of the Hub with retries, limited waiting and one kind of error.

Note: the client by itself waits without end, for an answer and wherever the Hub says `Retry-After`. It repeats reads
and uploads, but neither a commit, a tag, nor the creation of a repository.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import TRANSIENT, http_status

TRIES = 4
LONGEST_WAIT = 300
"""Seconds that the Hub may ask us to wait; it counts requests in windows of five minutes."""
_LONGEST_SILENCE = 600.0  # seconds; a commit of many files takes the Hub minutes

_MISSING = "no such repository"

T = TypeVar("T")


def git_blob_id(content: bytes) -> str:
    """The SHA-1 by which git, and so the Hub's listing, names a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubError(Exception):
    """The Hub, or the way to it, failed; reported without the client's text, which may quote the user's token."""

    def __init__(self, what: str, status: int | None, cause: str, transient: bool, wait: float | None = None) -> None:
        """Take the action, the HTTP status if one came, the cause, and whether another try may succeed."""
        super().__init__(f"{what} failed: {f'the Hub answered with status {status}' if status else cause}.")
        self.status = status
        self.cause = cause
        """In words, with the name of the client's error."""
        self.transient = transient
        self.missing = cause == _MISSING
        """Whether there is no such repository, or none that the token may see."""
        self.wait = wait
        """Seconds that the answer asked us to wait, if it did."""


def call_hub(call: Callable[[], T], what: str, tries: int = TRIES) -> T:
    """Make a call of the client, and again while its failures are transient.

    Args:
        call: only calls of huggingface_hub, which may be repeated where `tries` is over 1.
        what: the action, as the beginning of a sentence: `Reading user/name`.
        tries: at most.

    Returns:
        The result of the call.

    Raises:
        HubError: where the last try failed, or another cannot help.
        UserError: where HF_HUB_OFFLINE forbids requests, or the token cannot be sent.
    """
    for tried in range(1, tries + 1):
        try:
            with _limits():
                return call()
        except Exception as error:  # a damaged answer may break the client anywhere
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of a file here
            failure = _failure(error, what)
        if not failure.transient or tried == tries:
            break
        time.sleep(2**tried if failure.wait is None else failure.wait)
    raise failure


class _WaitTooLongError(Exception):
    """The Hub asks to wait longer than LONGEST_WAIT."""


def _failure(error: BaseException, what: str) -> HubError:
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, OfflineModeIsEnabled):
        raise UserError(f"{what} is impossible: HF_HUB_OFFLINE forbids to ask the Hub. Unset it.") from None
    if isinstance(error, UnicodeEncodeError):  # of a header
        raise UserError(f"{what} is impossible: the token (HF_TOKEN, `hf auth login`) is none of the Hub's.") from None
    causes = list(_causes(error))
    if any(isinstance(cause, _WaitTooLongError) for cause in causes):
        return HubError(what, None, f"the Hub asks to wait for more than {LONGEST_WAIT} s", transient=False)
    status = http_status(error)
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return HubError(what, status, _MISSING, transient=False)
    cause = type(causes[-1] if isinstance(error, RuntimeError) else error).__name__
    transient = status is None or status in TRANSIENT
    unreachable = cause in ("ConnectError", "ConnectTimeout")
    why = f"there is no way to the Hub, by the network, a proxy or HF_ENDPOINT ({cause})" if unreachable else ""
    return HubError(what, status, why or f"no answer that can be used ({cause})", transient, _requested_wait(causes))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _requested_wait(errors: Iterable[BaseException]) -> float | None:
    """Seconds that the answer behind the errors asks us to wait, if it does."""
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
    """Limit how long the client waits for an answer, and how long it obeys `Retry-After`."""
    from huggingface_hub import get_session

    def refuse_long_waits(response: Any) -> None:
        if response.status_code in TRANSIENT and (_wait(response.headers) or 0) > LONGEST_WAIT:
            raise _WaitTooLongError

    session = get_session()
    timeout, session.timeout = session.timeout, _LONGEST_SILENCE
    session.event_hooks["response"].append(refuse_long_waits)
    try:
        yield
    finally:
        session.timeout = timeout
        session.event_hooks["response"].remove(refuse_long_waits)
