"""The meeting of workers and the watch over them, by real processes without TensorFlow, killed and stopped for real."""

import json
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from data_pipeline.cli import EXIT_DONE, EXIT_FAULT, EXIT_PREEMPTED, EXIT_REQUEST
from tests.trainer.workers import Worker, free_addresses, kill, until


class Team:
    """Workers that may be started one by one."""

    def __init__(self, count: int) -> None:
        self.addresses = free_addresses(count)
        self.started: list[Worker] = []

    def start(self, index: int, *, key: str = "k", timeout_s: float = 30, count: int | None = None) -> Worker:
        addresses = ",".join(self.addresses[:count])
        worker = Worker("tests.trainer.meeting_process", addresses, index, key, timeout_s)
        self.started.append(worker)
        return worker

    def start_all(self) -> list[Worker]:
        """All of them, met."""
        workers = [self.start(index) for index in range(len(self.addresses))]
        for worker in workers:
            assert worker.lines.get(timeout=60) == "met\n"
        return workers

    def visit(self) -> socket.socket:
        """A connection to worker 0, once it listens."""
        host, port = self.addresses[0].split(":")
        deadline = time.monotonic() + 20
        while True:
            try:
                return socket.create_connection((host, int(port)), timeout=20)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def hello(self, index: int, *, key: str = "k") -> socket.socket:
        """A connection that has said hello as this worker and been answered."""
        visitor = self.visit()
        hello = {"kind": "hello", "index": index, "workers": len(self.addresses), "key": key}
        visitor.sendall(json.dumps(hello).encode() + b"\n")
        assert b"wait" in visitor.recv(100)
        return visitor


@pytest.fixture
def three() -> Iterator[Team]:
    team = Team(3)
    yield team
    kill(team.started)


@pytest.fixture
def two() -> Iterator[Team]:
    team = Team(2)
    yield team
    kill(team.started)


def test_all_meet_in_any_order_and_the_port_is_free_again(three: Team) -> None:
    workers = [three.start(2), three.start(1), three.start(0)]
    for worker in workers:
        assert worker.lines.get(timeout=60) == "met\n"
    port = int(three.addresses[0].split(":")[1])
    socket.create_server(("", port)).close()  # as TensorFlow's server does, while the connections stay
    for worker in workers:
        worker.tell("bye")
    assert [worker.code(20) for worker in workers] == [EXIT_DONE] * 3


def test_who_does_not_come_is_named_by_all_who_did(three: Team) -> None:
    began = time.monotonic()
    workers = [three.start(0, timeout_s=3), three.start(1, timeout_s=3)]
    assert [worker.code(20) for worker in workers] == [EXIT_PREEMPTED] * 2
    assert time.monotonic() - began < 10
    for worker in workers:
        assert f"Didn't come within 3 s: worker 2 ({three.addresses[2]})." in worker.errors
        assert "Traceback" not in worker.errors


def test_a_missing_worker_0_is_named(two: Team) -> None:
    worker = two.start(1, timeout_s=1)
    assert worker.code(20) == EXIT_PREEMPTED
    assert f"worker 0 ({two.addresses[0]}): Connection refused" in worker.errors


def test_a_name_that_is_not_known_yet_is_asked_for_again(two: Team) -> None:
    two.addresses[0] = "nowhere.invalid:1"
    worker = two.start(1, timeout_s=1)
    assert worker.code(20) == EXIT_PREEMPTED
    assert "worker 0 (nowhere.invalid:1): " in worker.errors


@pytest.mark.parametrize("index", [0, 1])
def test_sigterm_ends_a_lone_waiting_worker_at_once(two: Team, index: int) -> None:
    worker = two.start(index)
    until(lambda: "Waiting" in worker.errors, 20, "the meeting")
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.code(10) == EXIT_PREEMPTED
    assert time.monotonic() - began < 2


def test_another_key_is_refused_and_what_differs_is_named(two: Team) -> None:
    chief = two.start(0, key="organ: epochs=4\norgan: seed=0")
    wrong = two.start(1, key="organ: epochs=5\norgan: seed=0")
    assert wrong.code(20) == EXIT_REQUEST
    assert "Worker 1, at 127.0.0.1, was refused by worker 0" in wrong.errors
    assert "worker 0 has organ: epochs=4, it has organ: epochs=5" in wrong.errors
    assert "seed" not in wrong.errors
    assert "To fix it" in wrong.errors
    right = two.start(1, key="organ: epochs=4\norgan: seed=0")  # a stray worker of before does no harm
    assert right.lines.get(timeout=20) == chief.lines.get(timeout=60) == "met\n"
    assert "Worker 1, at 127.0.0.1, was refused" in chief.errors


def test_another_number_of_workers_is_refused(three: Team) -> None:
    three.start(0)
    wrong = three.start(1, count=2)
    assert wrong.code(20) == EXIT_REQUEST
    assert "it was told of 2 workers, worker 0 of 3" in wrong.errors


def test_a_second_worker_with_the_same_index_is_refused(three: Team) -> None:
    workers = [three.start(0), three.start(1)]
    until(lambda: "Waiting" in workers[1].errors, 20, "worker 1")
    second = three.start(1)
    until(lambda: any(w.process.poll() is not None for w in three.started), 20, "a refusal")
    refused = next(w for w in (workers[1], second) if w.process.poll() is not None)
    assert refused.code(10) == EXIT_REQUEST
    assert "there is a worker 1 already, at 127.0.0.1" in refused.errors


def test_a_worker_that_came_again_takes_its_own_place(three: Team) -> None:
    chief = three.start(0)
    first = three.hello(1)  # alive for the network, but it answers nothing more: as a lost machine
    again = three.start(1)
    while first.recv(1000):  # until worker 0 hangs up on it: all others may come only then
        pass
    first.close()
    last = three.start(2)
    for worker in (chief, again, last):
        assert worker.lines.get(timeout=60) == "met\n"
    killed = [chief, again, last]
    assert all(worker.process.poll() is None for worker in killed)


def test_a_worker_killed_during_the_meeting_is_waited_for(two: Team) -> None:
    team = Team(3)
    try:
        chief, first = team.start(0), team.start(1)
        until(lambda: "Waiting" in first.errors, 20, "worker 1")
        first.process.kill()
        workers = [chief, team.start(1), team.start(2)]
        for worker in workers:
            assert worker.lines.get(timeout=60) == "met\n"
    finally:
        kill(team.started)


def test_port_scanners_do_no_harm(two: Team) -> None:
    chief = two.start(0)
    noise = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b"x" * 3_000_000,
    ]
    noise += [b'{"kind": "hello"}\n', b'{"kind": "hello", "index": true, "workers": 2, "key": "k"}\n', b"\xff\xfe\n"]
    visitors = []
    for data in noise:
        visitor = two.visit()
        visitors.append(visitor)
        try:
            visitor.sendall(data)
        except ConnectionError:
            continue  # dropped before all of it was said
        if not data:
            visitor.close()
    worker = two.start(1)
    assert worker.lines.get(timeout=20) == chief.lines.get(timeout=60) == "met\n"


def test_what_is_no_meeting_is_asked_again_until_the_time_is_up(two: Team) -> None:
    port = int(two.addresses[0].split(":")[1])
    with socket.create_server(("127.0.0.1", port)) as server:
        worker = two.start(1, timeout_s=2)
        connection, _ = server.accept()
        connection.sendall(b"\0\0\x12\4\0\0\0\0\0\n")  # as TensorFlow's server begins
        assert worker.code(20) == EXIT_PREEMPTED
        connection.close()
    assert "what answers there is no start-up meeting" in worker.errors


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_killed_worker_ends_all_others_at_once_and_is_named(three: Team, lost: int) -> None:
    workers = three.start_all()
    killed_at = time.monotonic()
    workers[lost].process.kill()
    others = [worker for index, worker in enumerate(workers) if index != lost]
    assert [worker.code(20) for worker in others] == [EXIT_PREEMPTED] * 2
    assert max(worker.ended_at for worker in others) - killed_at < 5
    for worker in others:
        assert f"Worker {lost} ({three.addresses[lost]}) was lost: its connection broke" in worker.errors
        assert "Traceback" not in worker.errors


@pytest.mark.parametrize("lost", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_stopped_worker_ends_all_others_within_a_minute_and_is_named(three: Team, lost: int) -> None:
    workers = three.start_all()
    stopped_at = time.monotonic()
    workers[lost].process.send_signal(signal.SIGSTOP)
    others = [worker for index, worker in enumerate(workers) if index != lost]
    assert [worker.code(60) for worker in others] == [EXIT_PREEMPTED] * 2
    took = max(worker.ended_at for worker in others) - stopped_at
    assert 25 < took < 60
    for worker in others:
        assert f"Worker {lost} ({three.addresses[lost]}) was lost: nothing was heard of it for 30 s" in worker.errors


@pytest.mark.long
def test_a_worker_that_was_stopped_itself_accuses_nobody(two: Team) -> None:
    """As long as the others still bear it."""
    workers = two.start_all()
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)
    time.sleep(35)
    for worker in workers:
        worker.process.send_signal(signal.SIGCONT)
    time.sleep(3)
    assert [worker.process.poll() for worker in workers] == [None, None]


def test_seconds_in_which_python_stands_still_are_borne(two: Team) -> None:
    workers = two.start_all()
    for worker in workers:
        worker.tell("hold")
    for worker in workers:
        assert worker.lines.get(timeout=20) == "held\n"
        worker.tell("bye")
    assert [worker.code(20) for worker in workers] == [EXIT_DONE] * 2


def test_worker_0_outlives_the_others_that_said_goodbye(three: Team) -> None:
    workers = three.start_all()
    for worker, word in zip(workers[1:], ("bye", "preempt"), strict=True):
        worker.tell(word)
    assert [worker.code(20) for worker in workers[1:]] == [EXIT_DONE, EXIT_PREEMPTED]
    time.sleep(12)  # longer than a worker is borne that ended otherwise
    assert workers[0].process.poll() is None
    workers[0].tell("bye")
    assert workers[0].code(20) == EXIT_DONE


def test_the_others_may_outlive_worker_0_or_wait_for_its_end(three: Team) -> None:
    workers = three.start_all()
    workers[1].tell("wait")
    with pytest.raises(TimeoutError):
        _wait(workers[1], 1.5)
    workers[0].tell("bye")
    assert [worker.code(20) for worker in workers[:2]] == [EXIT_DONE] * 2
    assert workers[2].process.poll() is None
    workers[2].tell("bye")
    assert workers[2].code(20) == EXIT_DONE


@pytest.mark.parametrize(("word", "code"), [("fail", EXIT_FAULT), ("refuse", EXIT_REQUEST)])
def test_a_worker_that_ends_with_an_error_takes_the_others_along(three: Team, word: str, code: int) -> None:
    workers = three.start_all()
    workers[2].tell(word)
    assert workers[2].code(20) == code
    assert [worker.code(20) for worker in workers[:2]] == [EXIT_PREEMPTED] * 2
    for worker in workers[:2]:
        assert f"Worker 2 ({three.addresses[2]}) has ended with exit code {code}: " in worker.errors
        assert ("broken" if word == "fail" else "no such thing") in worker.errors


def _wait(worker: Worker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while worker.process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)
