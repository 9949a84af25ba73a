"""Real servers on loopback for the download's tests: files with Range and faults, rustac, and pgstac on PostgreSQL.

All listen on free ports of 127.0.0.1, wait for themselves with a bound, and end with the `with` block.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = "127.0.0.1"


class Unavailable(Exception):
    """The server's program is not on this machine: the reason for a test to skip."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # below the server's root, without the mount and the query
    query: str
    status: int
    sent: int  # bytes of content
    start: float  # s, time.monotonic
    end: float


@dataclass
class Fault:
    """What goes wrong in the first `times` requests of every URL that `pattern` is found in.

    kind: an HTTP status; `reset` (RST in the middle of the content); `stall` (silence in the middle, for `seconds`);
    `truncate` (the connection is closed in the middle); `empty` (a whole answer without content); `page` (HTML with
    status 200, as from a captive portal).
    """

    pattern: str
    kind: int | str
    times: int = 1
    retry_after: float | None = None
    seconds: float = 60.0
    methods: Sequence[str] = ("GET",)
    seen: Counter[str] = field(default_factory=Counter)
    fired: int = 0


class FileServer:
    """A folder over HTTP. `mount()` gives it a fresh URL, so that no cache knows what is under it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.latency = 0.0  # s before each answer
        self.rate = 0.0  # bytes/s of each connection; 0: as fast as it goes
        self.gate: Callable[[str, str], int | None] | None = None  # (path, query) -> a status that refuses, or None
        self.mounts = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Threads((HERE, 0), _Files)
        self._server.files = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HERE}:{self._server.server_address[1]}"

    def mount(self) -> str:
        """A new name of the root; what happened and was ordered before is forgotten."""
        with self._lock:
            self.mounts += 1
            self.log, self.faults, self.latency, self.rate, self.gate = [], [], 0.0, 0.0, None
            return f"{self.url}/{self.mounts}"

    def fail(self, pattern: str, kind: int | str, **how: Any) -> Fault:
        self.faults.append(Fault(pattern, kind, **how))
        return self.faults[-1]

    def requests(self, pattern: str = "", method: str = "GET") -> list[Request]:
        with self._lock:
            return [r for r in self.log if r.method == method and re.search(pattern, r.path)]

    def sent(self, pattern: str = "") -> int:
        return sum(request.sent for request in self.requests(pattern))

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def record(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)

    def fault_of(self, method: str, url: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if method in fault.methods and re.search(fault.pattern, url):
                    fault.seen[url] += 1
                    if fault.seen[url] <= fault.times:
                        fault.fired += 1
                        return fault
        return None

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    files: FileServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about."""


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and content, sent apart, wait for each other's acknowledgement
    timeout = 30
    server: _Threads

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(content=False)

    def do_GET(self) -> None:
        self.answer(content=True)

    def answer(self, content: bool) -> None:
        files, start = self.server.files, time.monotonic()
        url, _, query = self.path.partition("?")
        path = "/".join(url.split("/")[2:])  # without the mount
        files.wait(files.latency)
        status, sent = 500, 0
        try:
            fault = files.fault_of(self.command, path)
            refused = files.gate(path, query) if files.gate else None
            if refused or (fault and isinstance(fault.kind, int)):
                status = refused or int(fault.kind)  # type: ignore[union-attr]
                headers = {"Retry-After": f"{fault.retry_after:g}"} if fault and fault.retry_after is not None else {}
                self.head(status, 0, headers)
                return
            if fault and fault.kind == "page":
                status, sent = 200, self.page(content)
                return
            file = (files.root / path).resolve()
            if not file.is_relative_to(files.root.resolve()) or not file.is_file():
                status = 404
                self.head(status, 0)
                return
            size = file.stat().st_size
            first, last = self.span(size)
            if first > last:
                status = 416
                self.head(status, 0, {"Content-Range": f"bytes */{size}"})
                return
            status = 206 if "Range" in self.headers else 200
            if fault and fault.kind == "empty":
                self.head(status, 0)
                return
            more = {"Content-Range": f"bytes {first}-{last}/{size}"} if status == 206 else {}
            self.head(status, last - first + 1, more)
            if content:
                with file.open("rb") as source:
                    source.seek(first)
                    data = source.read(last - first + 1)
                sent = self.broken(fault, data) if fault else self.send(data)
        except OSError:
            self.close_connection = True
        finally:
            files.record(Request(self.command, path, query, status, sent, start, time.monotonic()))

    def span(self, size: int) -> tuple[int, int]:
        """First and last byte that are asked for."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match or match[0] == "bytes=-":
            return 0, size - 1
        if not match[1]:
            return max(0, size - int(match[2])), size - 1
        return int(match[1]), min(int(match[2] or size), size - 1)

    def head(self, status: int, length: int, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {"Accept-Ranges": "bytes", "Content-Type": "image/tiff", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, data: bytes) -> int:
        files = self.server.files
        if not files.rate:
            self.wfile.write(data)
            return len(data)
        step = 4096
        for at in range(0, len(data), step):
            self.wfile.write(data[at : at + step])
            files.wait(step / files.rate)
        return len(data)

    def page(self, content: bool) -> int:
        text = b"<html><body>Please sign in to the network</body></html>" * 20
        self.head(200, len(text), {"Content-Type": "text/html"})
        if content:
            self.wfile.write(text)
        return len(text)

    def broken(self, fault: Fault, data: bytes) -> int:
        half = data[: len(data) // 2]
        self.wfile.write(half)
        if fault.kind == "stall":
            self.server.files.wait(fault.seconds)
        if fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        return len(half)


@contextmanager
def file_server(root: Path) -> Iterator[FileServer]:
    server = FileServer(root)
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        return taken.getsockname()[1]


@contextmanager
def rustac(folder: Path, collections: Sequence[dict], items: Sequence[dict]) -> Iterator[str]:
    """The URL of rustac's API, which keeps the items in memory. It ignores `query` and `filter`."""
    program = shutil.which("rustac", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise Unavailable("rustac is not installed (pip install rustac)")
    paths = [_write(folder / f"collection-{n}.json", collection) for n, collection in enumerate(collections)]
    paths.append(_write(folder / "items.json", {"type": "FeatureCollection", "features": list(items)}))
    address = f"{HERE}:{free_port()}"
    url, command = f"http://{address}", [program, "serve", "--addr", address, *map(str, paths)]
    with _running(command, lambda: _answers(url), folder / "rustac.log"):
        yield url


@contextmanager
def pgstac(folder: Path, collections: Sequence[dict], items: Sequence[dict]) -> Iterator[str]:
    """The URL of stac-fastapi-pgstac on a PostgreSQL of its own, which is thrown away afterwards."""
    if missing := [m for m in ("pypgstac", "stac_fastapi.pgstac", "uvicorn", "psycopg_pool") if not _has(m)]:
        raise Unavailable(f"{', '.join(missing)}: not installed (pip install stac-fastapi-pgstac 'pypgstac[psycopg]')")
    with _postgres() as environment:
        loader = [sys.executable, "-m", "pypgstac.pypgstac"]
        tables = {"collections": collections, "items": items}
        _checked([*loader, "migrate"], environment)
        for table, rows in tables.items():
            path = folder / f"{table}.ndjson"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            _checked([*loader, "load", table, str(path), "--method", "upsert"], environment)
        url = f"http://{HERE}:{(port := free_port())}"
        app = ["stac_fastapi.pgstac.app:create_app", "--factory", "--host", HERE, "--port", str(port)]
        command = [sys.executable, "-m", "uvicorn", *app]
        with _running(command, lambda: _answers(url), folder / "pgstac.log", env=environment):
            yield url


@contextmanager
def _postgres() -> Iterator[dict[str, str]]:
    """Start a database cluster in a temporary folder, and return the environment that its clients need."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (versions and str(versions[-1]))
    if not initdb:
        raise Unavailable("PostgreSQL is not installed (apt-get install postgresql-15 postgresql-15-postgis-3)")
    binaries = Path(initdb).resolve().parent
    if not list(Path("/usr/share/postgresql").glob(f"{binaries.parent.name}/extension/postgis.control")):
        raise Unavailable("PostGIS is not installed (apt-get install postgresql-15-postgis-3)")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    home = Path(tempfile.mkdtemp(prefix="s2sr-pg-"))
    if as_user:
        shutil.chown(home, "postgres", "postgres")
    data, port = home / "data", str(free_port())
    try:
        _checked(
            [str(binaries / "initdb"), "-D", str(data), "-U", "s2sr", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"],
            cwd=home,
            **as_user,
        )
        quick = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
        settings = [word for setting in quick for word in ("-c", setting)]
        server = [str(binaries / "postgres"), "-D", str(data), "-k", str(home), "-h", HERE, "-p", port, *settings]
        ready = [str(binaries / "pg_isready"), "-q", "-h", HERE, "-p", port, "-d", "postgres"]
        with _running(server, lambda: subprocess.run(ready).returncode == 0, home / "log", cwd=home, **as_user):
            names = {"HOST": HERE, "PORT": port, "USER": "s2sr", "PASSWORD": "s2sr", "DATABASE": "postgres"}
            yield os.environ | {f"PG{name}": value for name, value in names.items()}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _write(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content))
    return path


def _checked(command: Sequence[str], environment: Mapping[str, str] | None = None, **how: Any) -> None:
    """Run a command. Output goes to a file, as a daemon that it leaves behind would keep a pipe open."""
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=120, **how
        )
        if done.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {said.read().decode()[-2000:]}")


@contextmanager
def _running(command: Sequence[str], ready: Callable[[], bool], log: Path, **how: Any) -> Iterator[None]:
    """The process, from when it is ready. SIGINT is a quick and clean end for all of them, PostgreSQL too."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=_end_with_parent, **how
        )
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _end_with_parent() -> None:
    """On Linux the process ends also where the tests are killed and nothing is shut down."""
    if sys.platform == "linux":
        prctl, set_death_signal = ctypes.CDLL(None).prctl, 1
        prctl(set_death_signal, signal.SIGINT)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False
