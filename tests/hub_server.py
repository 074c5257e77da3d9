"""A Hugging Face Hub of our own on loopback, and clients that can reach nothing else.

`HubServer` serves repositories given as {path: bytes}, each at one commit, and speaks what the real clients
(huggingface_hub, datasets) ask for when they read. `HubServer.run` runs Python code as such a client: where the
machine lets us, in a network namespace that has only this server in it; everywhere under a hook that refuses, and
tells, whatever else is looked up or connected to. What a newcomer gets wrong: HF_ENDPOINT and its like are read when
the client is imported, so code that talks to this server must run in a process of its own.
"""

import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Kind = Literal["dataset", "model"]


@dataclass(frozen=True)
class Repo:
    """A repository at its only commit, which is also what its refs name."""

    name: str
    files: Mapping[str, bytes]
    kind: Kind = "dataset"
    commit: str = COMMIT
    gated: bool = False
    refs: tuple[str, ...] = ("main",)

    def entries(self, folder: str, recursive: bool) -> list[dict[str, object]]:
        """Files and folders below a folder, as the Hub lists them."""
        below = [path for path in sorted(self.files) if path.startswith(f"{folder}/" if folder else "")]
        parents = {str(parent) for path in below for parent in Path(path).parents} - {".", folder}
        deep = [self.entry(path) for path in sorted({*below, *parents} - set(Path(folder).parents))]
        depth = len(Path(folder).parts) + 1
        return [one for one in deep if recursive or len(Path(str(one["path"])).parts) == depth]

    def entry(self, path: str) -> dict[str, object]:
        if path in self.files:
            return {"type": "file", "path": path, "size": len(self.files[path]), "oid": blob_id(self.files[path])}
        return {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


@dataclass
class HubServer:
    """Repositories, and what was asked of them."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """`GET /api/datasets/user/name/refs`, with the query left out, in the order of arrival."""
    tokens: set[str] = field(default_factory=set)
    """The values of the Authorization headers that came."""
    sent_bytes: int = 0
    """The length of all bodies sent."""
    failing: dict[str, int] = field(default_factory=dict)
    """Regular expression of paths -> the status that they are answered with, and with the token that came."""
    down: bool = False
    """Whether nobody listens."""
    page: int = 1000
    """Entries of a page of a listing."""

    def add(self, repo: Repo) -> Repo:
        self.repos[repo.kind, repo.name] = repo
        return repo

    def asked(self, pattern: str) -> int:
        """How many requests match a regular expression."""
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def run(self, code: str, *arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python code as a client whose caches lie in `home`; fail where it looked for anything but this server."""
        alone = can_be_alone()
        ours, theirs = socket.socketpair()
        clean = {k: v for k, v in os.environ.items() if not re.search(r"(?i)^HF_|^HUGGING|_proxy$", k)}
        variables = {**clean, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
        listener = None if alone else socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1] if listener else 0
        client = [sys.executable, "-c", _PRELUDE + code, str(theirs.fileno()), str(port), *arguments]
        home.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [*(_ALONE if alone else []), *client],
            cwd=home,
            env=variables,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        with ours, _ended(process), self._serving(listener or _received(ours)):
            out, errors = process.communicate(timeout=300)
            refused = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
        assert not refused, f"The client looked for something else than the server:\n{refused}\n{errors}"
        return subprocess.CompletedProcess(client, process.returncode, out, errors)

    @contextmanager
    def _serving(self, listener: socket.socket) -> Iterator[None]:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        if self.down:
            listener.close()
            yield
            return
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request; this is all of the Hub there is."""
        self.requests.append(f"{method} {unquote(urlsplit(url).path)}")
        self.tokens |= {headers["Authorization"]} if "Authorization" in headers else set()
        asked = Asked.parse(url, headers, body)
        if failing := [status for pattern, status in self.failing.items() if re.search(pattern, url)]:
            return Answer(failing[0], f"No, {headers.get('Authorization')}.".encode())
        if asked is None:
            return _refusal(404, "")
        repo = self.repos.get((asked.kind, asked.name))
        if repo is None:  # the Hub does not say whether it is private
            return _refusal(404 if "Authorization" in headers else 401, "RepoNotFound")
        if asked.revision not in (repo.commit, *repo.refs):
            return _refusal(404, "RevisionNotFound")
        if repo.gated and asked.what not in ("", "revision"):
            return _refusal(403, "GatedRepo")
        answers = {"resolve": _content, "tree": self._listing, "paths-info": _paths, "refs": _refs}
        return answers.get(asked.what, _info)(repo, asked)

    def _listing(self, repo: Repo, asked: "Asked") -> Answer:
        recursive, start = asked.query.get("recursive", "").lower() == "true", int(asked.query.get("cursor", 0))
        entries, end = repo.entries(asked.inside, recursive), start + self.page
        if asked.inside and not entries:
            return _refusal(404, "EntryNotFound")
        following = f'<{asked.url}?recursive={recursive}&cursor={end}>; rel="next"'
        return _json(entries[start:end], {"Link": following} if end < len(entries) else {})


@dataclass(frozen=True)
class Asked:
    """A request, taken apart: /api/datasets/NAME/WHAT/REVISION/INSIDE or /datasets/NAME/resolve/REVISION/INSIDE."""

    kind: str
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
        if not (found := api or file):
            return None
        kind, name, what, revision, inside = (unquote(part or "") for part in found.groups())
        url = f"http://{headers['Host']}{path}"
        return cls(kind or "model", name, what, revision or "main", inside, url, query, headers, body)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, content, headers = self.hub.answer(self.command, self.path, self.headers, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent_bytes += len(content)
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


def blob_id(content: bytes) -> str:
    """What git calls the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _content(repo: Repo, asked: Asked) -> Answer:
    if asked.inside not in repo.files:
        return _refusal(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})
    content = repo.files[asked.inside]
    headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{blob_id(content)}"', "Accept-Ranges": "bytes"}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
    if not found:
        return Answer(200, content, headers)
    start, end = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
    if start >= len(content):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    return Answer(206, content[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def _paths(repo: Repo, asked: Asked) -> Answer:
    known = {str(path) for file in repo.files for path in (file, *Path(file).parents)}
    return _json([repo.entry(path) for path in parse_qs(asked.body.decode())["paths"] if path in known])


def _info(repo: Repo, _: Asked) -> Answer:
    siblings = [{"rfilename": path} for path in sorted(repo.files)]
    facts = {"private": False, "gated": "auto" if repo.gated else False, "downloads": 0, "likes": 0, "tags": []}
    return _json({"id": repo.name, "sha": repo.commit, "siblings": siblings, **facts})


def _refs(repo: Repo, _: Asked) -> Answer:
    branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": repo.commit} for name in repo.refs]
    return _json({"branches": branches, "tags": [], "converts": [], "pullRequests": []})


def _json(content: object, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


def _refusal(status: int, code: str, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **headers} if code else headers)


_ALONE = ["unshare", "--map-root-user", "--net"]


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


@functools.cache
def can_be_alone() -> bool:
    """Whether this machine lets us make a network namespace."""
    try:
        return subprocess.run([*_ALONE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _received(channel: socket.socket) -> socket.socket:
    """The listening socket that a client made inside of its namespace."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    return socket.socket(fileno=descriptors[0])


# Runs in the client before its code: in a namespace, brings loopback up and hands a listening socket to the test.
_PRELUDE = """
import fcntl, os, socket, struct, sys
_test, _port = socket.socket(fileno=int(sys.argv.pop(1))), int(sys.argv.pop(1))
_test.set_inheritable(False)
if not _port:
    with socket.socket() as _any:
        fcntl.ioctl(_any, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    with socket.create_server(("127.0.0.1", 0)) as _listener:
        socket.send_fds(_test, [b"."], [_listener.fileno()])
        _port = _listener.getsockname()[1]

def _only_the_server(event, facts, here=("127.0.0.1", _port)):
    place = facts[1] if event == "socket.connect" else facts[0] if event == "socket.getaddrinfo" else None
    if isinstance(place, tuple) and place[:2] != here or isinstance(place, str) and place != here[0]:
        _test.send(f"{event} {place}\\n".encode())
        raise PermissionError(f"{event} {place}")

sys.addaudithook(_only_the_server)
os.environ.setdefault("HF_ENDPOINT", f"http://127.0.0.1:{_port}")
"""
