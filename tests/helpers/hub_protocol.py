"""What our own Hub answers: requests taken apart, and the answers to those that read and those that write.

The requests are those that the real clients (huggingface_hub 2.4, datasets) make; large files travel by LFS, not Xet.
What a newcomer gets wrong: a large file is sent before the commit that names it, and stays where no commit follows.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.helpers.hub_repo import CREATED, Commit, Kind, Repo, sha256


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Hub(Protocol):
    """What the answers need to know of the server."""

    repos: dict[tuple[str, str], Repo]
    parts: dict[tuple[str, int], bytes]
    page: int
    part_bytes: int
    least_large: int
    user: str

    def add(self, repo: Repo) -> Repo: ...


@dataclass(frozen=True)
class Asked:
    """A request, taken apart: /api/datasets/NAME/WHAT/REVISION/INSIDE or /datasets/NAME/resolve/REVISION/INSIDE.

    Of large files: /datasets/NAME.git/info/lfs/objects/INSIDE with `batch` or `verify`, and /SHA256/INSIDE with
    `object` or `complete`.
    """

    kind: Kind
    name: str
    what: str
    revision: str
    inside: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def parse(cls, url: str, headers: Mapping[str, str], body: bytes) -> "Asked | None":
        path, query = urlsplit(url).path, {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        api = re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/([a-z-]+))?(?:/([^/]+))?(?:/(.+))?", path)
        file = re.fullmatch(r"/(?:(dataset)s/)?([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path)
        large = re.fullmatch(r"/(?:(dataset)s/)?([^/]+/[^/]+)\.git/info/(lfs)/([a-z0-9]+)/([a-z]+)", path)
        if not (found := api or large or file):
            return None
        kind, name, what, revision, inside = (unquote(part or "") for part in found.groups())
        url = f"http://{headers['Host']}{path}"
        return cls(kind or "model", name, what, revision or "main", inside, url, query, headers, body)  # type: ignore[arg-type]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def writes(self) -> bool:
        return self.what in ("preupload", "commit", "tag") or (self.what == "lfs" and not self.signed)

    @property
    def signed(self) -> bool:
        """Whether the address alone gives the right, as of S3."""
        return self.what == "lfs" and self.revision != "objects"


def answer_of(hub: Hub, path: str, asked: Asked | None, headers: Mapping[str, str], body: bytes) -> Answer:
    """The answer to a request; this is all of the Hub there is."""
    known = "Authorization" in headers
    if path in _GENERAL:
        return _GENERAL[path](hub, headers, body) if known or path == _CARD else refusal(401, "")
    if asked is None:
        return refusal(404, "")
    repo = hub.repos.get((asked.kind, asked.name))
    if repo is None or (repo.private and not known and not asked.signed):
        return refusal(404 if known else 401, "RepoNotFound")  # the Hub does not say whether it is private
    if asked.writes and not known:
        return refusal(401, "")
    if asked.writes and asked.name.split("/")[0] != hub.user and "create_pr" not in asked.query:
        return refusal(403, "")
    if asked.what == "lfs":
        return _LARGE.get(asked.inside, _large_missing)(hub, repo, asked)
    if (commit := repo.resolved(asked.revision)) is None:
        return refusal(404, "RevisionNotFound")
    if repo.gated and asked.what not in ("", "revision"):
        return refusal(403, "GatedRepo")
    return _ANSWERS.get(asked.what, _info)(hub, repo, commit, asked)


def as_json(content: object, headers: Mapping[str, str] = {}, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


def refusal(status: int, code: str, headers: Mapping[str, str] = {}, message: str = "") -> Answer:
    told = {"X-Error-Code": code, "X-Error-Message": message or code} if code else {}
    return Answer(status, json.dumps({"error": message or code}).encode(), {**told, **headers})


def _content(_: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    held = repo.history[commit]
    if asked.inside not in held.files:
        return refusal(404, "EntryNotFound", {"X-Repo-Commit": commit})
    content, etag = held.files[asked.inside], f'"{held.etag(asked.inside)}"'
    headers = {"X-Repo-Commit": commit, "ETag": etag, "Accept-Ranges": "bytes"}
    if asked.inside in held.large:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
    if not found:
        return Answer(200, content, headers)
    start, end = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
    if start >= len(content):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    return Answer(206, content[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def _tree(hub: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    recursive = asked.query.get("recursive", "").lower() == "true"
    entries = repo.history[commit].entries(asked.inside, recursive)
    if asked.inside and not entries:
        return refusal(404, "EntryNotFound")
    return _paged(hub, asked, entries, f"recursive={recursive}&")


def _paged(hub: Hub, asked: Asked, items: list[Any], query: str = "") -> Answer:
    start = int(asked.query.get("cursor", 0))
    end = start + hub.page
    following = f'<{asked.url}?{query}cursor={end}>; rel="next"'
    return as_json(items[start:end], {"Link": following} if end < len(items) else {})


def _paths(_: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    held = repo.history[commit]
    known = {str(path) for file in held.files for path in (file, *Path(file).parents)}
    return as_json([held.entry(path) for path in parse_qs(asked.body.decode())["paths"] if path in known])


def _info(_: Hub, repo: Repo, commit: str, __: Asked) -> Answer:
    siblings = [{"rfilename": path} for path in sorted(repo.history[commit].files)]
    facts = {"private": repo.private, "gated": "auto" if repo.gated else False, "downloads": 0, "likes": 0, "tags": []}
    return as_json({"id": repo.name, "sha": commit, "siblings": siblings, **facts})


def _refs(_: Hub, repo: Repo, __: str, asked: Asked) -> Answer:
    def listed(refs: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": commit} for name, commit in refs.items()]

    pulls = {"pullRequests": listed(repo.pulls, "")} if "include_prs" in asked.query else {}
    return as_json(
        {
            "branches": listed(repo.branches, "refs/heads/"),
            "tags": listed(repo.tags, "refs/tags/"),
            "converts": [],
            **pulls,
        }
    )


def _commits(hub: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    found: list[dict[str, object]] = []
    at: str | None = commit
    while at is not None:
        one = repo.history[at]
        facts = {"id": at, "title": one.title, "message": "", "date": "2026-01-01T00:00:00.000Z"}
        found.append({**facts, "authors": [{"user": hub.user}]})
        at = one.parent
    return _paged(hub, asked, found)


def _tag(_: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    tag = asked.json["tag"]
    if tag in repo.tags:
        return refusal(409, "TagExists", message=f"Tag {tag} already exists")
    repo.tags[tag] = commit
    return as_json({})


def _preupload(_: Hub, repo: Repo, commit: str, asked: Asked) -> Answer:
    """Which way each file is to go, and what is there under its name."""
    held, rules = repo.history[commit], asked.json.get("gitIgnore")
    if rules is not None:
        held = Commit({**held.files, ".gitignore": rules.encode()}, held.large)
    files = [
        {
            "path": one["path"],
            "uploadMode": "lfs" if one["size"] >= repo.least_large else "regular",
            "shouldIgnore": held.ignores(one["path"]),
            "oid": held.etag(one["path"]) if one["path"] in held.files else None,
        }
        for one in asked.json["files"]
    ]
    return as_json({"files": files})


def _commit(_: Hub, repo: Repo, head: str, asked: Asked) -> Answer:
    """One commit on what is the newest, or nothing at all."""
    try:
        lines = [json.loads(line) for line in asked.body.splitlines()]
    except ValueError:
        return refusal(400, "BadRequest")
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit", head) != head:
        return refusal(412, "PreconditionFailed", message="A commit has happened since. Please refresh and try again.")
    changes: dict[str, bytes | None] = {}
    for line in lines:
        path = line["value"].get("path")
        if line["key"] == "file":
            changes[path] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "lfsFile":
            if line["value"]["oid"] not in repo.objects:
                return refusal(400, "BadRequest", message=f"LFS pointer of {path} points to a file that is not there")
            changes[path] = repo.objects[line["value"]["oid"]]
        elif line["key"] == "deletedFile":
            if path not in repo.history[head].files:
                return refusal(404, "EntryNotFound", message="A file with this name doesn't exist")
            changes[path] = None
    large = frozenset(line["value"]["path"] for line in lines if line["key"] == "lfsFile")
    made = repo.make_commit(head, changes, large, header["summary"])
    home = f"http://{asked.headers['Host']}/{asked.kind}s/{repo.name}"
    if "create_pr" not in asked.query:
        repo.branches[asked.revision] = made
        return as_json({"success": True, "commitOid": made, "commitUrl": f"{home}/commit/{made}"})
    number = len(repo.pulls) + 1
    repo.pulls[f"refs/pr/{number}"] = made
    pull = f"{home}/discussions/{number}"
    return as_json({"success": True, "commitOid": made, "commitUrl": f"{home}/commit/{made}", "pullRequestUrl": pull})


_ANSWERS: dict[str, Callable[[Hub, Repo, str, Asked], Answer]] = {
    "resolve": _content,
    "tree": _tree,
    "paths-info": _paths,
    "refs": _refs,
    "commits": _commits,
    "preupload": _preupload,
    "commit": _commit,
    "tag": _tag,
}


def _large_batch(hub: Hub, repo: Repo, asked: Asked) -> Answer:
    """Where each large file is to be sent; nowhere where it is there already."""
    lfs = asked.url.removesuffix("/objects/batch")

    def actions(one: Mapping[str, Any]) -> dict[str, object]:
        href, verify = f"{lfs}/{one['oid']}/object", {"href": f"{lfs}/objects/verify"}
        if one["size"] <= hub.part_bytes:
            return {"upload": {"href": href}, "verify": verify}
        count = -(-one["size"] // hub.part_bytes)
        parts = {str(part): f"{href}?part={part}" for part in range(1, count + 1)}
        header = {"chunk_size": str(hub.part_bytes), **parts}
        return {"upload": {"href": f"{lfs}/{one['oid']}/complete", "header": header}, "verify": verify}

    objects = [
        {"oid": one["oid"], "size": one["size"], **({} if one["oid"] in repo.objects else {"actions": actions(one)})}
        for one in asked.json["objects"]
    ]
    return as_json({"transfer": "basic", "objects": objects})


def _large_content(hub: Hub, repo: Repo, asked: Asked) -> Answer:
    """Take a large file, or a part of one; as S3 does, refuse what has not the hash that it was announced with."""
    oid = asked.revision
    if part := int(asked.query.get("part", 0)):
        hub.parts[oid, part] = asked.body
    elif sha256(asked.body) == oid:
        repo.objects[oid] = asked.body
    else:
        return refusal(400, "BadDigest")
    return Answer(200, b"", {"ETag": f'"{sha256(asked.body)}"'})


def _large_complete(hub: Hub, repo: Repo, asked: Asked) -> Answer:
    oid, parts = asked.json["oid"], asked.json["parts"]
    sent = [hub.parts.get((oid, part["partNumber"]), b"") for part in parts]
    named = [part["etag"].strip('"') for part in parts]
    if [sha256(part) for part in sent] != named or sha256(b"".join(sent)) != oid:
        return refusal(400, "BadDigest")
    repo.objects[oid] = b"".join(sent)
    return as_json({})


def _large_verify(_: Hub, repo: Repo, asked: Asked) -> Answer:
    held = repo.objects.get(asked.json["oid"])
    return as_json({}) if held is not None and len(held) == asked.json["size"] else refusal(404, "ObjectNotFound")


def _large_missing(_: Hub, __: Repo, ___: Asked) -> Answer:
    return refusal(404, "")


_LARGE: dict[str, Callable[[Hub, Repo, Asked], Answer]] = {
    "batch": _large_batch,
    "verify": _large_verify,
    "object": _large_content,
    "complete": _large_complete,
}


def _create(hub: Hub, headers: Mapping[str, str], body: bytes) -> Answer:
    asked = json.loads(body)
    kind, name = asked.get("type", "model"), f"{asked.get('organization') or hub.user}/{asked['name']}"
    if name.split("/")[0] != hub.user:
        return refusal(403, "", message="You don't have the rights to create a repository there")
    url = f"http://{headers['Host']}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in hub.repos:
        return as_json({"url": url, "error": "You already created this repo"}, status=409)
    private = asked.get("visibility") == "private" or asked.get("private", False)
    hub.add(Repo(name, CREATED, kind, commit=sha256(name.encode())[:40], private=private, least_large=hub.least_large))
    return as_json({"url": url, "name": name})


def _who(hub: Hub, headers: Mapping[str, str], _: bytes) -> Answer:
    return as_json({"type": "user", "name": hub.user, "orgs": [], "auth": {"type": "access_token"}})


def _card(_: Hub, __: Mapping[str, str], body: bytes) -> Answer:
    """Whether a card begins with YAML."""
    found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
    if found is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        facts = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, status=400)
    wrong = [{"message": '"license" must be a string'}] if not isinstance(facts.get("license", ""), str) else []
    return as_json({"errors": wrong, "warnings": []}, status=400 if wrong else 200)


_CARD = "/api/validate-yaml"
_GENERAL: dict[str, Callable[[Any, Mapping[str, str], bytes], Answer]] = {
    "/api/repos/create": _create,
    "/api/whoami-v2": _who,
    _CARD: _card,
}
