"""All workers of a run meet before TensorFlow binds them: TensorFlow would wait for a missing one for ever.

    with meet(workers, key, timeout_s=600.0) as peers:
        strategy = make_strategy(...)

Worker 0 listens on its own address and the others connect to it. Each says its index, how many workers there are and
`key`: lines of what must be the same for all. When all have come, worker 0 tells them and stops listening, so that
TensorFlow's server gets the port. The connections stay, see `peers.py`. Nobody proves who they are: as with
TensorFlow's own servers, who reaches the port is trusted, so only the workers should.
"""

import errno
import queue
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from data_pipeline.cli import RequestError, WorkerLost, invalid_flag, say
from data_pipeline.manifest import Manifest
from trainer.addresses import Workers, split_address
from trainer.config import TrainConfig
from trainer.peers import PING_EVERY_S, SILENCE_S, Peers
from trainer.reception import HELLO_S, Reception
from trainer.wire import Line, Message

TURN_S = 0.1
RETRY_S = 0.5
CONNECT_S = 3.0
RESOLVE_S = 10.0
STRANGE = "what answers there is no start-up meeting: another program, or a worker of before that hasn't ended yet"


def meet(workers: Workers, key: str, *, timeout_s: float) -> Peers:
    """Connect to the other workers.

    Raises `WorkerLost` if some don't come in time, `RequestError` if this one was started otherwise than worker 0.
    """
    others = len(workers.addresses) - 1
    if not others:
        return Peers(workers, {})
    say(f"This is {workers.name(workers.index)}. Waiting up to {timeout_s:g} s for {others} more.")
    if workers.chief:
        return Peers(workers, _receive(workers, key, timeout_s))
    return Peers(workers, {0: _visit(workers, key, timeout_s)})


def key_of(configs: Sequence[TrainConfig]) -> str:
    """What all workers must have alike: settings and datasets, a line each."""
    lines = []
    for config in configs:
        values = config.settings() | {"dataset": Manifest.load(config.dataset_folder).fingerprint}
        lines += [f"{config.organ}: {name}={value}" for name, value in values.items() if name != "organ"]
    return "\n".join(lines)


def _receive(workers: Workers, key: str, timeout_s: float) -> dict[int, Line]:
    """What worker 0 does: the connections to all others."""
    deadline = time.monotonic() + timeout_s
    with _listen(split_address(workers.addresses[0])[1], deadline) as listener, Reception(workers, key) as reception:
        listener.setblocking(False)
        while not reception.complete:
            if time.monotonic() > deadline:
                raise reception.give_up(timeout_s)
            reception.turn(listener, TURN_S)
        return reception.open_doors()


def _listen(port: int, deadline: float) -> socket.socket:
    """All interfaces, as TensorFlow's server will: a pod's own name may not be known yet."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    while True:
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                fix = "end the program that has it, or give all workers another port"
                expected = "a port that is free here"
                raise invalid_flag("worker_port", expected=expected, received=port, fix=f"{fix} ({error})") from error
        time.sleep(RETRY_S)  # a worker of before may be ending


def _visit(workers: Workers, key: str, timeout_s: float) -> Line:
    """What the others do: the connection to worker 0."""
    deadline = time.monotonic() + timeout_s
    host, port = split_address(workers.addresses[0])
    while True:
        try:
            line = Line(_dial(host, port))
            line.send("hello", index=workers.index, workers=len(workers.addresses), key=key)
            return _answered(line, deadline)
        except OSError as error:
            cause = error.strerror or str(error)
        if time.monotonic() > deadline:
            raise WorkerLost(
                f"Didn't come within {timeout_s:g} s: {workers.name(0)}: {cause}. This process ends with "
                "exit code 75. To fix it: see that all workers are started and reach each other, or give a longer "
                "--start_timeout."
            )
        time.sleep(RETRY_S)


def _answered(line: Line, deadline: float) -> Line:
    """Wait for the answer of worker 0. Raises `OSError` if it has gone, or the wrong program is there.

    Once it has answered at all, it is worker 0 that says when it has been too long, since it knows who is missing.
    """
    heard, before = False, time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            selector.select(PING_EVERY_S)
            now = time.monotonic()
            line.silent_s, before = line.silent_s + now - before, now
            for message in line.receive():
                heard = True
                if _is_welcome(message):
                    return line
            late = line.silent_s > (SILENCE_S if heard else HELLO_S) or (not heard and now > deadline)
            if late or not line.open:
                line.close()
                raise ConnectionError("it has gone again" if heard else STRANGE)
            line.send("ping")


def _is_welcome(message: Message) -> bool:
    """Raises what worker 0 says instead."""
    if message["kind"] == "refused":
        raise RequestError(str(message.get("text")))
    if message["kind"] == "missing":
        raise WorkerLost(str(message.get("text")))
    return bool(message["kind"] == "welcome")


def _dial(host: str, port: int) -> socket.socket:
    """Connect to the first address that answers. Raises `OSError`."""
    error: OSError = ConnectionError(f"no address of {host} is known")
    for family, kind, protocol, _, address in _resolve(host, port):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(address)
            # With nobody there, a socket of this host may be given the very port and connect to itself.
            if connection.getsockname() != connection.getpeername():
                return connection
            error = ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
        except OSError as failed:
            error = failed
        connection.close()
    raise error


def _resolve(host: str, port: int) -> list[Any]:
    """The name may not be known yet. In a thread, since no signal is handled while the resolver waits."""
    found: queue.Queue[list[Any] | OSError] = queue.Queue()

    def ask() -> None:
        try:
            found.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=RESOLVE_S)
    except queue.Empty:
        raise TimeoutError(f"nobody says what the address of {host} is") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
