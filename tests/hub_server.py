"""A server on this machine that speaks the Hub's protocol to the real ``huggingface_hub``, for reading and writing.

Two ports: the Hub, and a second host to which downloads of LFS files are redirected. Tests reach it as users reach
the Hub, through ``HF_ENDPOINT``, and assert on its log of requests. Files are served and taken by plain HTTP and LFS;
it does not offer Xet.

    with HubServer() as hub:
        commit = hub.add("org/bank", {"model.safetensors": data, "README.md": b"..."})
        hub.run("info", "org/bank", home=tmp_path)     # the masterkey command in a process of its own
        hub.fault("model.safetensors", "cut", times=1)
        assert hub.sent("model.safetensors") < 1000    # bytes of bodies that left the server
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from hub_faults import Fault, Faults, Kind
from hub_routes import Reply, answer_cdn, answer_hub
from hub_store import Blob, Store

_CHUNK = 64 * 1024


@dataclass
class Request:
    """A request as the server saw it; ``sent`` counts the bytes of the body that it sent."""

    host: str
    method: str
    path: str
    range: str | None = None
    token: str | None = None
    status: int = 0
    sent: int = 0
    received: bytes = field(default=b"", repr=False)


class HubServer:
    """The server; a context manager. ``tokens`` are those that may read everything and write."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.requests: list[Request] = []
        self.tokens = {"hf_reader"}
        self.bytes_per_second: float | None = None
        self.closing = threading.Event()
        self._link = threading.Lock()
        self._link_free_at = 0.0
        self._hosts = {name: _Host(self, name) for name in ("hub", "cdn")}
        self.endpoint = self._hosts["hub"].url
        self.cdn = self._hosts["cdn"].url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for host in self._hosts.values():
            host.shutdown()
            host.server_close()

    # -- what is on it ------------------------------------------------------------------------------------

    def add(
        self, repo_id: str, files: Mapping[str, bytes | Path], *, private: bool = False, gated: bool = False
    ) -> str:
        """Put a repository, or a new commit of one, on the server: exactly these files; return the commit."""
        return self.store.add(repo_id, files, private=private, gated=gated)

    def put(self, path: str, content: bytes | Path) -> str:
        """Put a file on the second host, outside of any repository; return its URL."""
        self.store.files[path] = Blob.of(path, content)
        return f"{self.cdn}/files/{path}"

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        """Return a file as it was pushed."""
        repository = self.store.repositories[repo_id]
        sha = repository.resolve(revision)
        assert sha is not None
        return bytes(repository.commits[sha][path].data)

    def fault(self, path: str, kind: Kind, **about: Any) -> Fault:
        """From now on, let something go wrong with requests for ``path``; see ``hub_faults.Fault``."""
        return self.faults.add(Fault(path, kind, **about))

    # -- how to use it ------------------------------------------------------------------------------------

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Environment of a process whose Hub this is, with its cache and its token below ``home``."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return {
            **own,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",  # for writing: with hf_xet installed the client would insist on Xet
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # nobody is there, so that no test leaves this machine
            **more,
        }

    def run(self, *arguments: str, home: Path, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the ``masterkey`` command, or with ``-c CODE`` Python, in a process of its own with this Hub."""
        start = [sys.executable] if arguments[:1] == ("-c",) else [sys.executable, "-m", "masterkey.cli.main"]
        return subprocess.run(
            [*start, *arguments],
            env=self.environment(home, **more),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def log(self, path: str = "", method: str | None = None) -> list[Request]:
        """Return the requests whose path holds ``path``."""
        return [r for r in list(self.requests) if path in r.path and method in (None, r.method)]

    def sent(self, path: str = "") -> int:
        """Return how many bytes of bodies were sent for such requests."""
        return sum(request.sent for request in self.log(path))

    def clear(self) -> None:
        """Forget the requests and the faults."""
        self.requests.clear()
        self.faults.clear()

    def wait_for_link(self, size: int) -> None:
        """Wait until ``size`` bytes have gone through a link of ``bytes_per_second``, which all requests share."""
        if self.bytes_per_second is None:
            return
        with self._link:
            now = time.monotonic()
            self._link_free_at = max(now, self._link_free_at) + size / self.bytes_per_second
            pause = self._link_free_at - now
        self.closing.wait(pause)


class _Host(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: HubServer, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.name = name
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that has hung up is nothing to report
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Host

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        hub, name = self.server.hub, self.server.name
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        target = unquote(self.path.split("?")[0])
        request = Request(name, self.command, target, self.headers.get("range"), token)
        request.received = self.rfile.read(int(self.headers.get("content-length") or 0))
        hub.requests.append(request)
        fault = hub.faults.due(name, self.command, target)
        if fault is not None and fault.kind == "silent":
            hub.closing.wait()
            self.close_connection = True
            return
        if fault is not None and fault.kind == "status":
            reply = Reply(fault.code)  # what was asked for is not done
        else:
            answer = answer_cdn if name == "cdn" else answer_hub
            reply = answer(hub, self.command, self.path, token, request.received)
        self._send(request, reply, fault)

    def _send(self, request: Request, reply: Reply, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        status, body, headers = reply.status, memoryview(reply.body), dict(reply.headers)
        if fault and kind == "status":
            status, body, headers = fault.code, memoryview(b"{}"), {"Content-Type": "application/json", **fault.headers}
        elif kind == "html":
            page = b"<!DOCTYPE html><html><body>Please log in to this network</body></html>"
            status, body, headers = 200, memoryview(page), {"Content-Type": "text/html"}
        elif kind == "redirect loop":
            status, body, headers = 302, memoryview(b""), {"Location": self.path}
        elif fault and kind == "changed":
            headers["ETag"] = f'"version-{fault.befell}"'
        if kind == "wrong size" and reply.file:
            body = body[: len(body) - 7]
        if reply.file and status == 200 and kind not in ("html", "no range") and request.range:
            status, body, content_range = _ranged(request.range, body)
            if kind == "wrong range":
                content_range = content_range.replace("bytes ", "bytes 1")
            headers["Content-Range"] = content_range
        request.status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(request, body, fault)

    def _send_body(self, request: Request, body: memoryview, fault: Fault | None) -> None:
        hub, kind = self.server.hub, fault.kind if fault else None
        stop = int(len(body) * fault.at) if fault and kind in ("cut", "stalled") else len(body)
        if fault and kind == "wrong bytes" and len(body):
            changed = bytearray(body)
            changed[min(int(len(body) * fault.at), len(body) - 1)] ^= 0x55
            body = memoryview(changed)
        for begin in range(0, stop, _CHUNK):
            piece = body[begin : min(begin + _CHUNK, stop)]
            hub.wait_for_link(len(piece))
            request.sent += len(piece)  # before it is sent: who has the last byte finds it counted
            self.wfile.write(piece)
        if fault and kind == "stalled":
            fault.stalls.set()
            hub.closing.wait()
        if kind in ("cut", "stalled"):
            self.close_connection = True


def _ranged(wanted: str, body: memoryview) -> tuple[int, memoryview, str]:
    """Return status, body and Content-Range for one range of bytes (RFC 9110, section 14)."""
    size = len(body)
    first, last = wanted.removeprefix("bytes=").split("-")
    begin, end = (int(first), int(last or size - 1)) if first else (max(size - int(last), 0), size - 1)
    end = min(end, size - 1)
    if begin > end:
        return 416, memoryview(b""), f"bytes */{size}"
    return 206, body[begin : end + 1], f"bytes {begin}-{end}/{size}"


def card(**front_matter: Any) -> bytes:
    """Return a README with this front matter."""
    return f"---\n{json.dumps(front_matter)}\n---\n# A card\n".encode()
