"""Something in front of the Cloud Storage emulator that does to requests what networks and busy services do.

    front = FaultyFront("http://127.0.0.1:4443")                # the address of the emulator
    with front.running():                                       # clients are told front.url
        front.rule = listed({3: "reset after", 5: "503"})       # by the number of the request, from 1
        front.rule = seeded(1, rate=0.2, faults=EVERY_FAULT)    # by chance, the same for the same seed
        front.rule = matching("GET", "shard", "cut", times=2)   # by method and part of the address
        ...
    front.log                                                   # every request: its address, fault, status, bytes

As a fixture, `faulty_bucket` is a `FaultyBucket`: `.server` (a `BucketServer` whose clients talk to the front; this
process is one) and `.front`. Processes get `**faulty_bucket.server.env`. Faults, by name:

* `reset before`, `reset after`: the connection is torn down (RST), before the emulator sees the request, or after it
  has done what was asked, so that only the answer is lost
* `429`, `503`, `403`, any status: this answer, without asking the emulator; `429 wait` asks to come again in a second
* `slow`: the answer trickles in over `SLOW_S`
* `cut`: the connection is closed after half the body, `short`: a body that ends early but says so
* `flip`: a bit of what is downloaded is another one, with the length right; `flip sent`: of what is uploaded
* `hang`: no answer until `front.release()` is called; the emulator isn't asked

`front.latency_s` delays every answer. A request is in the log as soon as it has come. What the emulator doesn't know,
the front answers as the service documents it: how much of an upload has arrived (`Content-Range: bytes */SIZE`).
"""

import http.client
import json
import os
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_S = 0.3
SLOW_PIECES = 20
PIECE_BYTES, BODY_BYTES = 1 << 16, 500
EVERY_FAULT = ("reset before", "reset after", "429", "429 wait", "503", "slow", "cut", "short", "flip")
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"})


@dataclass
class Seen:
    """A request: `address` is its path and query, unquoted; `sent` counts the bytes of the body of the answer.

    `body` is the beginning of what was sent along, which for a small upload names the object.
    """

    number: int
    method: str
    address: str
    received: int
    body: bytes = b""
    fault: str = ""
    status: int = 0
    sent: int = 0

    @property
    def media(self) -> bool:
        """Whether it asks for an object's contents."""
        return self.method == "GET" and ("/download/" in self.address or "alt=media" in self.address)


Rule = Callable[[Seen], str]
Answer = tuple[int, list[tuple[str, str]], bytes]


def listed(faults: Mapping[int, str]) -> Rule:
    """Faults by the number of the request."""
    return lambda seen: faults.get(seen.number, "")


def seeded(seed: int, *, rate: float, faults: Sequence[str] = EVERY_FAULT) -> Rule:
    """One of `faults` for about so many of all requests."""

    def decide(seen: Seen) -> str:
        chance = random.Random(f"{seed} {seen.number}")
        return chance.choice(faults) if chance.random() < rate else ""

    return decide


def matching(method: str, part: str, fault: str, *, times: int = 1) -> Rule:
    """`fault` for the first `times` requests of this method whose address holds `part`."""
    left = [fault] * times

    def decide(seen: Seen) -> str:
        try:
            return left.pop() if seen.method == method and part in seen.address else ""
        except IndexError:
            return ""

    return decide


@dataclass
class FaultyFront:
    """`back` is the address it speaks for."""

    back: str
    latency_s: float = 0.0
    rule: Rule = field(default=lambda seen: "")
    log: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._count = 0
        self.uploads: dict[str, Answer] = {}  # by their addresses, the last answer to a piece
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answers requests while the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.release()
            self._server.shutdown()
            self._server.server_close()

    def release(self) -> None:
        """End all requests that hang, without an answer."""
        self._released.set()

    def wait_released(self) -> None:
        self._released.wait(300)

    def decide(self, seen: Seen) -> None:
        """Number a request and choose its fault."""
        with self._lock:
            self._count += 1
            seen.number = self._count
            seen.fault = self.rule(seen)
            self.log.append(seen)

    def media_bytes(self) -> int:
        """How much of objects' contents has been sent."""
        return sum(seen.sent for seen in list(self.log) if seen.media)

    def hit(self) -> list[str]:
        """The faults that were done."""
        return [seen.fault for seen in list(self.log) if seen.fault]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


def _handler(front: FaultyFront) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """The front keeps a log of its own."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen = Seen(0, self.command, urllib.parse.unquote(self.path), len(body), body[:BODY_BYTES])
            front.decide(seen)
            self._do(seen, body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer  # noqa: N815

        def _do(self, seen: Seen, body: bytes) -> None:
            time.sleep(front.latency_s)
            fault = seen.fault
            if fault == "hang":
                front.wait_released()
            if fault in ("reset before", "hang"):
                return self._reset()
            if fault[:3].isdecimal():
                return self._refuse(seen, int(fault[:3]), wait="wait" in fault)
            status, headers, data = self._ask(_flipped(body) if fault == "flip sent" else body)
            if fault == "reset after":
                return self._reset()
            if fault == "flip" and seen.media and data:
                data = _flipped(data)
            if fault == "short" and seen.media:
                data = data[: len(data) // 2]
            return self._send(seen, status, headers, data)

        def _ask(self, body: bytes) -> Answer:
            of = self.headers.get("Content-Range", "")
            if of.startswith("bytes */"):
                return front.uploads.get(self.path, (308, [], b""))
            answer = self._ask_emulator(body)
            if of and answer[0] in (200, 308):
                last = of.removeprefix("bytes ").partition("/")[0].partition("-")[2]
                kept = [pair for pair in answer[1] if pair[0].lower() != "range"]
                front.uploads[self.path] = answer[0], [*kept, ("Range", f"bytes=0-{last}")], answer[2]
            return answer

        def _ask_emulator(self, body: bytes) -> Answer:
            back = http.client.HTTPConnection(front.back.removeprefix("http://"), timeout=120)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            back.request(self.command, self.path, body if body or self.command in ("POST", "PUT") else None, headers)
            answer = back.getresponse()
            data = answer.read()
            # A session of an upload has an address, which must lead here again.
            kept = [
                (name, value.replace(front.back, front.url))
                for name, value in answer.getheaders()
                if name.lower() not in HOP_BY_HOP
            ]
            back.close()
            return answer.status, kept, data

        def _refuse(self, seen: Seen, status: int, *, wait: bool) -> None:
            message = f"{http.client.responses.get(status, 'Error')} (as the front was told)"
            data = json.dumps({"error": {"code": status, "message": message, "errors": [{"message": message}]}})
            headers = [("Content-Type", "application/json"), *([("Retry-After", "1")] if wait else [])]
            self._send(seen, status, headers, data.encode())

        def _send(self, seen: Seen, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            seen.status = status
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if status != http.client.NO_CONTENT:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if seen.fault == "cut" and data:
                self._write(seen, data[: len(data) // 2])
                self._reset()
                return
            pieces = SLOW_PIECES if seen.fault == "slow" else 1
            step = -(-len(data) // pieces) or 1
            for start in range(0, len(data), step):
                if pieces > 1:
                    time.sleep(SLOW_S / pieces)
                self._write(seen, data[start : start + step])

        def _write(self, seen: Seen, data: bytes) -> None:
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                seen.sent += len(piece)
                self.wfile.write(piece)

        def _reset(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())

    return Handler


def _flipped(data: bytes) -> bytes:
    """With one bit changed, past the first half: in what is uploaded that is the object, not what is said of it."""
    changed = bytearray(data)
    if changed:
        changed[2 * len(changed) // 3] ^= 4
    return bytes(changed)
