"""One connection between two workers: a JSON object per line, both ways; nothing here ever waits.

line = Line(connected_socket)
line.send("ping")
for message in line.receive(): ...      # then, if not line.open: the other side has gone, or talks another language
"""

import json
import socket
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

MAX_LINE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16


class Line:
    """Takes over the socket. `silent_s` is for whoever watches: `receive` sets it to 0 when something was heard."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._incoming = b""
        self._outgoing = b""
        self.open = True
        self.silent_s = 0.0
        self.peer = _host_of(connection)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, kind: str, **values: object) -> None:
        """Send now what the network takes, and the rest with the next message. Of a broken line, `receive` tells."""
        self._outgoing += json.dumps({"kind": kind, **values}).encode() + b"\n"
        with suppress(OSError):
            self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]

    def receive(self) -> list[Message]:
        """All messages that have come."""
        try:
            while self.open:
                data = self._socket.recv(CHUNK_BYTES)
                self._incoming += data
                self.open = bool(data) and len(self._incoming) <= MAX_LINE_BYTES
        except BlockingIOError:
            pass
        except OSError:
            self.open = False
        *lines, self._incoming = self._incoming.split(b"\n")
        messages = [_message(line) for line in lines]
        self.open = self.open and None not in messages
        heard = [message for message in messages if message]
        if heard:
            self.silent_s = 0.0
        return heard

    def finish(self) -> None:
        """Nothing more will be sent; what was sent still arrives."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.open = False
        self._socket.close()


def _message(line: bytes) -> Message | None:
    """None for what no worker says."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("kind"), str) else None


def _host_of(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    except OSError:
        return "an unknown host"
