"""A connection to a Ray cluster, and the room that its nodes have for workers."""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mtanimate.errors import InputError

_REACHED_IN = 10.0  # seconds
_CORES = 2  # of a worker without a GPU


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and how much of it a worker takes.

    Attributes:
        address: `local` (a cluster of this machine's own, for this run), `auto` (the one that this machine belongs to),
            or HOST:PORT.
        cores: Of each worker where no GPU computes; None: two, or what a node has.
    """

    address: str
    cores: int | None = None


@contextmanager
def connect(options: ClusterOptions, device: str, workers: int | None) -> "Iterator[Nodes]":
    """A connection to a cluster; one that is `local` ends with the block.

    Args:
        options: Which.
        device: As `choose_device` takes it. auto: GPUs where the cluster has some, else CPUs.
        workers: At most so many; None: as many as there is room for.

    Raises:
        InputError: Ray is missing, nothing answers, or there is no room for one worker.
    """
    # Ray prints what it thinks of its nodes to standard output, which holds results. This drops it; the log files stay.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray: pip install 'mtanimate[cluster]'") from error
    local = options.address == "local"
    folder = tempfile.mkdtemp(prefix="mtray-") if local else None
    try:
        with _own_signals():
            _begin(options, workers, folder)
        yield Nodes(options, device, workers)
    finally:
        if ray.is_initialized():
            with _own_signals():
                ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _begin(options: ClusterOptions, workers: int | None, folder: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "mtanimate"}
    if folder:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        cores = max(os.cpu_count() or 1, (workers or 0) * (options.cores or 1))
        ray.init("local", num_cpus=cores, include_dashboard=False, _temp_dir=folder, **quiet)
        return
    where = f"--cluster {options.address}"
    if options.address != "auto":
        _check_answers(options.address)
    try:
        ray.init(options.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        what = " ".join(str(error).split())[:300]
        raise InputError(f"{where}: no cluster can be used there ({what}): 'ray status' on a node says more") from error


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(f"--cluster {address}: give local, auto, or HOST:PORT, as 'ray start --head' prints it")
    try:
        socket.create_connection((host, int(port)), timeout=_REACHED_IN).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--cluster {address}: nothing answers there ({error}): check the address, and that 'ray status' works on "
            "that machine"
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes over SIGTERM; afterwards signals are handled as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Room:
    """What the cluster has for workers. cores, gpus: Of each worker."""

    workers: int
    cores: float
    gpus: int
    largest: dict[str, float] = field(default_factory=dict)
    nodes: int = 0


class Nodes:
    """The nodes of a connected cluster. Raises InputError where none has room for a worker."""

    def __init__(self, options: ClusterOptions, device: str, most: int | None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: with --cluster, give auto, cpu or cuda; Ray chooses among several")
        self._options, self._device, self._most = options, device, most
        room = self.room()
        if not room.workers:
            raise InputError(self.no_room(room))

    def room(self) -> Room:
        """How many workers the nodes have room for, as if nobody else used them."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU")}
        gpus = int(self._device != "cpu" and (largest["GPU"] >= 1 or self._device == "cuda"))
        cores = self._options.cores or (1 if gpus else self._cores(largest["CPU"], nodes))
        room = sum(
            int(min(node.get("CPU", 0.0) // cores, node.get("GPU", 0.0) if gpus else float("inf"))) for node in nodes
        )
        workers = room if self._most is None else min(room, self._most)
        return Room(workers, cores, gpus, largest, len(nodes))

    def _cores(self, largest: float, nodes: list[dict[str, float]]) -> int:
        """Of a worker that computes on them: fewer where more workers were asked for than would fit."""
        total = sum(node.get("CPU", 0.0) for node in nodes)
        fitting = total // self._most if self._most else _CORES
        return int(max(1, min(_CORES, largest, fitting)))

    def no_room(self, room: Room) -> str:
        """Says what a worker needs, and what there is."""
        needs = f"{room.cores:g} CPU core{'s' * (room.cores != 1)}" + (" and a GPU" if room.gpus else "")
        cpus, gpus = room.largest["CPU"], room.largest["GPU"]
        return (
            f"--cluster {self._options.address}: no room for a worker, which needs {needs} on one node; of "
            f"{room.nodes} nodes the largest has {cpus:g} CPU cores and {gpus:g} GPUs"
        )
