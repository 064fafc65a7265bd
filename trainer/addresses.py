"""Where the workers of one run are, and which of them this process is. Pure.

    workers = find_workers(wanted, os.environ, hostname=socket.gethostname())   # None: this process trains alone
    workers.addresses[workers.index]                                            # "train-1.workers:2222"

In this order: `TF_CONFIG`; a JobSet's `$JOBSET_NAME`, `$REPLICATED_JOB_NAME` and `$JOB_INDEX`, which its pods get from
their annotations `jobset.sigs.k8s.io/jobset-name`, `…/replicatedjob-name` and `…/job-index`; the host name of a pod of
an Indexed Job. Kubernetes calls such a pod `<job>-<index>`, a JobSet its Jobs `<jobset>-<replicated job>-<job index>`
and its Service like itself: https://jobset.sigs.k8s.io/docs/concepts
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.cli import RequestError, invalid_flag
from trainer.config import AUTO, MULTIWORKER, TrainConfig


@dataclass(frozen=True)
class Workers:
    """All workers of a run as `host:port`, and which of them this process is. The first is the chief."""

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        return self.index == 0

    def name(self, index: int) -> str:
        """A worker, as messages call it."""
        return f"worker {index} ({self.addresses[index]})"


def find_workers(wanted: TrainConfig, environment: Mapping[str, str], *, hostname: str) -> Workers | None:
    """The workers of this run; None if this process trains alone. Raises `RequestError`."""
    workers = _from_tf_config(environment.get("TF_CONFIG") or "{}")
    if wanted.distribution not in (AUTO, MULTIWORKER):
        if wanted.num_workers > 1:
            fix = f"leave out --num_workers, or give --distribution={MULTIWORKER}"
            expected = f"at most 1 with --distribution={wanted.distribution}"
            raise invalid_flag("num_workers", expected=expected, received=wanted.num_workers, fix=fix)
        return None
    if workers:
        _check_against_flags(workers, wanted)
    elif wanted.num_workers > 1:
        workers = _from_flags(wanted, environment, hostname)
    elif wanted.distribution == MULTIWORKER:
        raise RequestError(
            f"Invalid value for `--distribution`. Expected --num_workers of 2 or more, or the addresses of all workers "
            f"in TF_CONFIG, with {MULTIWORKER}. Received: neither. To fix it: give --num_workers and --worker_service "
            "in a Kubernetes Indexed Job, or set TF_CONFIG."
        )
    alone = workers is not None and len(workers.addresses) == 1 and wanted.distribution == AUTO
    return None if alone else workers


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as a pair; an IPv6 host is in brackets. Raises `ValueError`."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _from_flags(wanted: TrainConfig, environment: Mapping[str, str], hostname: str) -> Workers:
    index = _index(wanted, environment)
    service = wanted.worker_service or environment.get("JOBSET_NAME", "")
    if not service:
        expected = "the headless Service of the Job's pods"
        fix = "make a Service with clusterIP: None, name it here and as `subdomain` of the pods"
        raise invalid_flag("worker_service", expected=expected, received="", fix=fix)
    job = _job_of_set(environment) or _job_of_host(environment.get("HOSTNAME") or hostname, index)
    addresses = tuple(f"{job}-{i}.{service}:{wanted.worker_port}" for i in range(wanted.num_workers))
    return Workers(addresses, index)


def _index(wanted: TrainConfig, environment: Mapping[str, str]) -> int:
    """Which worker this is, from the flag or from the Job."""
    last = wanted.num_workers - 1
    if wanted.worker >= 0:
        if wanted.worker > last:
            fix = "count workers from 0, or give a larger --num_workers"
            raise invalid_flag("worker", expected=f"0 to {last}", received=wanted.worker, fix=fix)
        return wanted.worker
    text = environment.get("JOB_COMPLETION_INDEX", "")
    if not text:
        expected = f"0 to {last}, as there is no $JOB_COMPLETION_INDEX"
        fix = "number the workers with --worker, or run them as a Job with completionMode: Indexed"
        raise invalid_flag("worker", expected=expected, received=wanted.worker, fix=fix)
    if not text.isdecimal() or int(text) > last:
        raise RequestError(
            f"Invalid value for `$JOB_COMPLETION_INDEX`. Expected 0 to {last}. Received: {text!r}. "
            "To fix it: give the Job's completions as --num_workers."
        )
    return int(text)


def _job_of_set(environment: Mapping[str, str]) -> str:
    """The name of this pod's Job in a JobSet; empty where the environment doesn't say it."""
    parts = [environment.get(name, "") for name in ("JOBSET_NAME", "REPLICATED_JOB_NAME", "JOB_INDEX")]
    return "-".join(parts) if all(parts) else ""


def _job_of_host(hostname: str, index: int) -> str:
    """The name of the Job whose pod `index` has this host name."""
    job = hostname.split(".")[0].removesuffix(f"-{index}")
    if not job or job == hostname.split(".")[0]:
        raise RequestError(
            f"Invalid value for `$HOSTNAME`. Expected the host name of pod {index} of an Indexed Job, which ends with "
            f"-{index}. Received: {hostname!r}. To fix it: give --worker as the pod is numbered and leave out "
            "hostNetwork, or set TF_CONFIG."
        )
    return job


def _from_tf_config(text: str) -> Workers | None:
    """The workers that TF_CONFIG names; None if it names none. Raises `RequestError` for any other kind of cluster."""
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        others = sorted(set(cluster) - {"worker"})
        addresses = tuple(cluster.get("worker", []))
        kind, index = task.get("type"), task.get("index", -1)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _bad_tf_config("JSON", text) from error
    if others:
        raise _bad_tf_config(f"no task but workers, of which the first is the chief; found {', '.join(others)}", text)
    if not addresses:
        return None
    if kind != "worker" or isinstance(index, bool) or index not in range(len(addresses)):
        raise _bad_tf_config(f"a task of type worker with an index from 0 to {len(addresses) - 1}", text)
    wrong = [address for address in addresses if not _is_address(address)]
    if wrong:
        raise _bad_tf_config(f"each worker as host:port; found {wrong[0]!r}", text)
    if len(set(addresses)) < len(addresses):
        raise _bad_tf_config("another address for each worker", text)
    return Workers(addresses, int(index))


def _is_address(address: Any) -> bool:
    try:
        split_address(address)
    except (ValueError, AttributeError):
        return False
    return True


def _check_against_flags(workers: Workers, wanted: TrainConfig) -> None:
    fix = "leave out the flag, or TF_CONFIG"
    count = len(workers.addresses)
    if wanted.num_workers not in (0, count):
        expected = f"{count}, the number of workers in TF_CONFIG"
        raise invalid_flag("num_workers", expected=expected, received=wanted.num_workers, fix=fix)
    if wanted.worker not in (-1, workers.index):
        expected = f"{workers.index}, the index in TF_CONFIG"
        raise invalid_flag("worker", expected=expected, received=wanted.worker, fix=fix)


def _bad_tf_config(expected: str, received: str) -> RequestError:
    fix = 'use {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    return RequestError(f"Invalid value for `TF_CONFIG`. Expected {expected}. Received: {received!r}. To fix it: {fix}")
