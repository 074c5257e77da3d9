"""The meaning of a failed download from the Hugging Face Hub, in words for the user.

Note: errors of the client may quote headers, and a header holds the user's token. They are therefore reported without
their text and cause, and are nowhere logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from latentlens_dag.errors import UserError

TRANSIENT = {408, 429, 500, 502, 503, 504}
"""HTTP statuses after which another try may succeed."""
CONNECTION_HINT = (
    "Is there a network, does HF_HUB_OFFLINE forbid it, are HF_ENDPOINT and HF_TOKEN right where they are set?"
)


@contextmanager
def download_errors(repo: str, revision: str, kind: str) -> Iterator[None]:
    """Translate the client's errors of a download.

    Args:
        repo: user/name.
        revision: commit, branch or tag.
        kind: what is downloaded: a model, a release.

    Raises:
        UserError: in place of what the client raises.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:  # a RepositoryNotFoundError too
        raise UserError(
            f"{repo} of the Hub is gated: ask for access on its page, then log in with `hf auth login` or set HF_TOKEN."
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"There is no {kind} {repo} on the Hub, nor a folder of this name here, or it is private. Correct the "
            "name; log in with `hf auth login` if it is private."
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{repo} of the Hub has no revision {revision}. Take a commit that its page shows under `History`."
        ) from None
    except errors.HFValidationError:
        raise UserError(f"{repo} is no name of a {kind} of the Hub: write it as user/name.") from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(repo, error) from None
        raise UserError(
            f"{repo} of the Hub lacks a file that it lists at {revision}: it is not whole. Take another revision."
        ) from None
    except network_errors() as error:
        raise _unreachable(repo, error) from None
    except OSError as error:
        if error.errno is None:  # the client's own, of an answer that is not whole
            raise _unreachable(repo, error) from None
        raise UserError(
            f"{repo} of the Hub cannot be written to the cache ({error.strerror or type(error).__name__}): is the disk "
            "full? HF_HOME names another place."
        ) from None


def network_errors() -> tuple[type[Exception], ...]:
    """The errors that the client raises where no usable answer came."""
    import httpx2  # what huggingface_hub speaks HTTP with
    from huggingface_hub.errors import LocalEntryNotFoundError

    return (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError, UnicodeEncodeError)  # the last: of a header


def failure_cause(error: BaseException) -> str:
    """The cause of a failed request, without the error's text."""
    status = http_status(error)
    return f"the Hub answered with status {status}" if status else f"no answer ({type(error).__name__})"


def _unreachable(repo: str, error: Exception) -> UserError:
    failed = f"{repo} of the Hub cannot be downloaded: {failure_cause(error)}."
    if http_status(error) in TRANSIENT:
        return UserError(f"{failed} That mostly passes: try again in some minutes. What was fetched stays.")
    return UserError(f"{failed} {CONNECTION_HINT} `hf download` can bring it into the cache before.")


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or one that caused it, is about."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None
