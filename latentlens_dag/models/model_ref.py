"""References to models: a folder or a repository of the Hub, its commit, and whether its own code may be run.

Trust is part of the reference, so that a model cached under a trusted reference never answers a request that does not
allow the model's code. Note: a plain path is never trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import COMMIT, REPO_ID
from latentlens_dag.models.weight_files import gguf_instructions
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.paths import refuse_address, refuse_too_long


@dataclass(frozen=True)
class ModelRef:
    """A model by its location; trust counts for equality.

    Raises:
        ValueError: unless it has exactly one of `path` and `repo`, and a revision only with `repo`.
    """

    path: Path | None = None
    """A local folder."""
    repo: str | None = None
    """A model on the Hub, as user/name."""
    revision: str | None = None
    """A commit, branch or tag of `repo`; None for `main`. The version of a step needs the full commit."""
    trust_remote_code: bool = False
    """Whether the model's own code may be run."""

    def __post_init__(self) -> None:
        """Validate the combination of fields."""
        if (self.path is None) == (self.repo is None):
            raise ValueError(f"A model is either a path or a repo of the Hub, got {self.path!r} and {self.repo!r}.")
        if self.path is not None and self.revision is not None:
            raise ValueError(f"The folder {self.path} has no revisions, got {self.revision!r}.")

    @property
    def name(self) -> str:
        """The folder's name, or user/name."""
        return self.repo or Path(self.path or "").name

    @property
    def version(self) -> str:
        """A hash that identifies the content of a model of the Hub, whose commits never change.

        Raises:
            ValueError: for a folder, whose files would have to be read, and if `revision` is not a full commit.
        """
        if self.repo is None or not COMMIT.fullmatch(self.revision or ""):
            raise ValueError(f"{self} is not pinned by a commit of the Hub.")
        return hash_values([self.repo, self.revision, *self.version_marks])

    @property
    def version_marks(self) -> list[str]:
        """What counts for a version besides the files: permission to run code, which may give other states."""
        return ["trust_remote_code"] if self.trust_remote_code else []

    def to_json(self) -> dict[str, Any]:
        """The reference as JSON, with the fields of a defs.yaml."""
        if self.path is not None:
            return {"path": str(self.path), "trust_remote_code": self.trust_remote_code}
        return {"hub": self.repo, "revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ModelRef:
        """Invert `to_json`.

        Raises:
            ValueError: if a field is invalid. Only a literal true grants trust.
        """
        path, repo, revision = (_text(facts, field) for field in ("path", "hub", "revision"))
        trusted = facts.get("trust_remote_code", False)
        if repo is not None and not REPO_ID.fullmatch(repo):
            raise ValueError(f"`hub: {repo!r}` is no user/name.")
        if not isinstance(trusted, bool):
            raise ValueError(f"`trust_remote_code: {trusted!r}` is neither true nor false.")
        return cls(None if path is None else Path(path), repo, revision, trusted)

    def __str__(self) -> str:
        """The path, or user/name@revision."""
        return str(self.path or (self.repo if self.revision is None else f"{self.repo}@{self.revision}"))


def model_ref(source: str | Path | ModelRef, revision: str | None = None, trust_remote_code: bool = False) -> ModelRef:
    """The reference to a model that a caller names.

    Args:
        source: a folder, user/name on the Hub, or a reference.
        revision: for user/name, a commit, branch or tag.
        trust_remote_code: whether the model's own code may be run; a reference may grant it, too.

    Raises:
        UserError: if it is neither a folder nor a name of the Hub, or the revision does not apply to it.
    """
    ref = source if isinstance(source, ModelRef) else _resolve(source, revision)
    if revision not in (None, ref.revision):
        raise UserError(
            f"`revision` {revision} of {ref}: "
            + ("a folder has no revisions. Leave it out." if ref.path else "it names another one. Leave one out.")
        )
    return replace(ref, trust_remote_code=ref.trust_remote_code or trust_remote_code)


def _resolve(source: str | Path, revision: str | None) -> ModelRef:
    refuse_too_long(source, "model")
    if Path(source).is_dir():
        return ModelRef(path=Path(source))
    if isinstance(source, str) and REPO_ID.fullmatch(source):
        return ModelRef(repo=source, revision=revision)
    refuse_address(source, "model", "Name a folder of this machine, or a model on the Hub as user/name.")
    raise no_model_error(source)


def no_model_error(source: str | Path | ModelRef) -> UserError:
    """The error for a source that is neither a folder nor a name of the Hub."""
    if (file := Path(str(source))).is_file():
        return UserError(f"{source} is a file, but a model is a folder. {gguf_instructions(file) or ''}".strip())
    return UserError(f"{source} is no model: there is no such folder, and models of the Hub are written as user/name.")


def _text(facts: dict[str, Any], field: str) -> str | None:
    value = facts.get(field)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{field}: {value!r}` is no text.")
    return value
