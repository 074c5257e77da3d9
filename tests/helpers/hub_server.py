"""A Hugging Face Hub of our own on loopback, and clients that can reach nothing else.

`HubServer` serves repositories given as {path: bytes} (`hub_repo.py`), and speaks what the real clients
(huggingface_hub, datasets) ask for when they read and write (`hub_protocol.py`); this module is the network of it, with
what goes wrong there (`Fault`). `HubServer.run` runs Python code as such a client: where the
machine lets us, in a network namespace that has only such servers in it; everywhere under a hook that refuses, and
tells, whatever else is looked up or connected to. What a newcomer gets wrong: HF_ENDPOINT and its like are read when
the client is imported, so code that talks to this server must run in a process of its own (`warm_process.py`).
"""

import functools
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from tests.helpers.hub_protocol import Answer, Asked, answer_of
from tests.helpers.hub_repo import COMMIT, Repo, blob_id
from tests.helpers.warm_process import FIRST_PASSED, WarmProcess

__all__ = ["COMMIT", "Fault", "HubServer", "Repo", "blob_id", "can_be_alone"]


@dataclass
class Fault:
    """What goes wrong with the N-th request that matches a pattern, and with those that follow it, if so told."""

    kind: int | Literal["reset", "lost", "truncated", "flipped", "flipped_sent"]
    """A status; `reset`: the connection is closed before the request has an effect; `lost`: after it, without an
    answer; `truncated`: half its body; `flipped`: a byte of the answer's body; `flipped_sent`: of the request's."""
    pattern: str = ""
    """Regular expression of `METHOD /path?query`; where the path names no repository, a space and the body follow."""
    at: int = 1
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bytes = b""
    """What the flipped byte comes after; by default, it is the one in the middle."""
    seen: int = 0

    def strikes(self, request: str) -> bool:
        if not re.search(self.pattern, request):
            return False
        self.seen += 1
        return self.at <= self.seen < self.at + self.times


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
    received_bytes: int = 0
    """The length of all bodies received."""
    failing: dict[str, int] = field(default_factory=dict)
    """Regular expression of paths -> the status that they are answered with, and with the token that came."""
    down: bool = False
    """Whether nobody listens."""
    faults: list[Fault] = field(default_factory=list)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)
    """Regular expression of `METHOD /path?query` -> what somebody else does before the first such request; once."""
    page: int = 1000
    """Entries of a page of a listing."""
    user: str = "user"
    """Whose token it is, and so the names that may be written to."""
    part_bytes: int = 1_000_000
    """Larger files are sent in parts of so many bytes."""
    least_large: int = 1000
    """Of what is created here: files of so many bytes or more are large."""
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

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
        home.mkdir(exist_ok=True)
        client = WarmProcess(
            _PRELUDE + code,
            *(str(FIRST_PASSED), str(port), *arguments),
            folder=home,
            environment=variables,
            passed=[theirs.fileno()],
            within=_ALONE if alone else (),
        )
        theirs.close()
        with ours, _ended(client), self._serving(listener or _received(ours)):
            client.wait(300)
            refused = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
        out, errors = client.output()
        assert not refused, f"The client looked for something else than the server:\n{refused}\n{errors}"
        return subprocess.CompletedProcess(arguments, client.wait(), out, errors)

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
        self.received_bytes += len(body)
        for pattern in [pattern for pattern in self.meanwhile if re.search(pattern, f"{method} {url}")]:
            self.meanwhile.pop(pattern)()
        if failing := [status for pattern, status in self.failing.items() if re.search(pattern, url)]:
            return Answer(failing[0], f"No, {headers.get('Authorization')}.".encode())
        return answer_of(self, urlsplit(url).path, Asked.parse(url, headers, body), headers, body)

    def fault(self, request: str) -> Fault | None:
        """What goes wrong with this request."""
        return next((fault for fault in self.faults if fault.strikes(request)), None)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self._body()
        with self.hub.lock:
            named = "" if f"/{self.hub.user}/" in self.path else f" {body.decode(errors='replace')}"
            fault = self.hub.fault(f"{self.command} {self.path}{named}")
            kind = fault.kind if fault else None
            if kind == "reset" or (fault and isinstance(kind, int)):
                self.hub.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
                answer = self._refused(fault) if kind != "reset" else None
            else:
                sent = _flipped(body, fault.after) if fault and kind == "flipped_sent" else body
                answer = self.hub.answer(self.command, self.path, self.headers, sent)
        if answer is None or kind == "lost":
            self.close_connection = True
            return
        self._send(answer, fault)

    def _refused(self, fault: Fault) -> Answer:
        """A refusal that quotes the token, as a careless server may."""
        quoted = f"No, {self.headers.get('Authorization')}."
        code = {"X-Error-Message": "Invalid credentials in Authorization header"} if fault.kind == 401 else {}
        return Answer(int(fault.kind), json.dumps({"error": quoted}).encode(), {**code, **fault.headers})

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        status, content, headers = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "truncated":
            content, self.close_connection = content[: len(content) // 2], True
        self.hub.sent_bytes += len(content)
        self.wfile.write(_flipped(content, fault.after) if fault and kind == "flipped" else content)

    def _body(self) -> bytes:
        """What came with the request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass


def _flipped(content: bytes, after: bytes) -> bytes:
    """The content with a bit of one byte changed."""
    at = content.find(after) + len(after) if after in content and after else len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else content


_ALONE = ("unshare", "--map-root-user", "--net")


@contextmanager
def _ended(client: WarmProcess) -> Iterator[None]:
    try:
        yield
    finally:
        client.kill()


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
