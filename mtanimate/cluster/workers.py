"""Work on the machines of a Ray cluster: workers that are made once, and items that go to whichever is free.

Actors, not Ray Data: each row's beginning and end must reach the driver as they happen, a row's failure is that row's
alone, and what a lost node was working on goes to another without anything else being computed again. Ray Data gives
results by blocks of rows, and computes a lost block again as a whole.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mtanimate.cluster.connection import Nodes
from mtanimate.errors import InputError, MTAnimateError

T = TypeVar("T")

MOST_DEATHS = 3  # of workers at one item, after which it is given up
_ALONE = 60.0  # seconds without any worker, after which the run ends
_GLANCE = 1.0  # seconds between two looks at who has something to say
_CENSUS = 5.0  # seconds between two looks at the cluster's nodes
_AT_ONCE = {"gpu": 2, "cpu": 1}  # items in one worker: a GPU computes one while another is read or written

Log = Callable[[str], None]


Identity = dict[str, str]  # by names for messages


class Work(Protocol):
    """What a worker does. It is made once in each."""

    def identity(self) -> Identity:
        """What must be the same in all workers."""

    def perform(self, item: Any, before: Any) -> Iterator[Any]:
        """What there is to say about an item, as it comes. before: The last thing that a worker that was lost said
        about the same item; None: this is the first to work on it."""


# Makes the work in a worker. It gets the identity of the first worker's, to choose the same; None: it is the first.
Make = Callable[[Identity | None], Work]


def this_node() -> str:
    """The address of the node that this worker runs on."""
    import ray

    return str(ray.util.get_node_ip_address())


def given_up(doing: str) -> str:
    """Why an item was given up at which `MOST_DEATHS` workers died. doing: `performed it`."""
    why = f"{MOST_DEATHS} workers died while they {doing}: is there enough memory on the nodes?"
    return f"{why} The same command tries it again"


def unseen(paths: Iterable[Path]) -> str:
    """Which of these this node does not see, for people; empty where it sees all."""
    missing = next((path for path in paths if not path.exists()), None)
    if missing is None:
        return ""
    return f"it does not see {missing}, which the run's own machine sees: use a folder that all nodes share"


def versions() -> Identity:
    """Of what a worker's results depend on. Builds of one version of PyTorch (+cpu, +cu130) count as the same."""
    return {name: version(name).partition("+")[0] for name in ("mtanimate", "torch", "numpy")}


class _Worker:
    """The actor. What it is to do comes in a later call, so that another version can be told from this one first."""

    def versions(self) -> tuple[str, str, Identity]:
        """The node's address, its identifier, and the versions there."""
        import ray

        return this_node(), ray.get_runtime_context().get_node_id(), versions()

    def begin(self, make: Make, agreed: Identity | None, folder: str) -> Identity | str:
        """What the work is identified by, or why it cannot be done here. folder: Where relative paths begin."""
        with suppress(OSError):  # it is not on this node: whatever is relative to it is not seen, and named
            os.chdir(folder)
        try:
            self._work = make(agreed)
            return self._work.identity()
        except MTAnimateError as error:
            return str(error)

    def perform(self, item: Any, before: Any) -> Iterator[Any]:
        yield from self._work.perform(item, before)


@dataclass(eq=False)
class _Member:
    """A worker, from the moment it is asked for.

    asked: What it has not answered yet: for its versions, then to begin. node, node_id: Where it is, once known.
    """

    actor: Any
    asked: Any
    node: str = ""
    node_id: str = ""
    ready: bool = False


@dataclass(eq=False)
class _Busy(Generic[T]):
    """An item in a worker. before: The last thing said about it."""

    item: T
    before: Any = None
    deaths: int = 0
    member: _Member | None = None


class Workers:
    """The workers on the nodes of a cluster. log: Gets a line for each that is lost."""

    def __init__(self, nodes: Nodes, log: Log) -> None:
        self._nodes, self._log = nodes, log
        self._room = nodes.room()
        self._members: set[_Member] = set()
        self._counted = time.monotonic()
        self._alone_since: float | None = None
        self._first: tuple[str, Identity] | None = None  # whose choices the others follow
        self._failures = 0

    @property
    def state(self) -> str:
        """`4 workers on 2 nodes`."""
        ready = [member.node_id for member in self._members if member.ready]
        return f"{len(ready)} worker{'s' * (len(ready) != 1)} on {len(set(ready))} node{'s' * (len(set(ready)) != 1)}"

    def spread(self, make: Make, lost: Callable[[T], Any], items: Iterable[T]) -> Generator[tuple[T, Any], None, None]:
        """Each item with what the workers say of it, as it comes.

        Args:
            make: Called in each worker. It is pickled.
            lost: Gives the last value for an item at which `MOST_DEATHS` workers died.
            items: Taken when a worker is free; they are pickled. An iterator at its end may have more after a value.

        Raises:
            InputError: A node has another version, or cannot do the work.
            MTAnimateError: No worker is left, and none comes.
        """
        import ray

        again: deque[_Busy[T]] = deque()
        coming = iter(items)
        busy: dict[Any, _Busy[T]] = {}
        free: deque[_Member] = deque()
        packed = ray.put(make)
        try:
            while True:
                self._grow()
                while free and (given := again.popleft() if again else _next(coming)):
                    given.member = free.popleft()
                    busy[_send(given)] = given
                if not busy and free:  # nothing is left to do
                    return
                starting = {member.asked: member for member in self._members if member.asked}
                for ref in self._listen([*starting, *busy]):
                    if ref in starting:
                        free.extend([starting[ref]] * self._welcome(starting[ref], packed))
                        continue
                    each = busy.pop(ref)
                    said = _heard(ref)
                    if isinstance(said, _Died):
                        self._bury(each.member, free)
                        each.deaths += 1
                        if each.deaths < MOST_DEATHS:
                            again.append(each)
                        else:
                            yield each.item, lost(each.item)
                    elif said is _END:
                        free.append(each.member)  # type: ignore[arg-type]
                    else:
                        busy[ref] = each
                        each.before = said
                        yield each.item, said
        finally:
            for member in self._members:
                with suppress(Exception):  # it may be dead already
                    ray.kill(member.actor)
            self._members.clear()

    def _listen(self, refs: list[Any]) -> list[Any]:
        """Those of whom there is news, after a while."""
        import ray

        if not refs:
            time.sleep(_GLANCE)
            return []
        ready, _ = ray.wait(refs, num_returns=1, timeout=_GLANCE)
        return list(ready)

    def _grow(self) -> None:
        """Ask for workers where there is room for more. Raises MTAnimateError where there has been none for a while."""
        now = time.monotonic()
        if now - self._counted > _CENSUS:
            self._room, self._counted = self._nodes.room(), now
        for _ in range(self._room.workers - len(self._members)):
            self._members.add(self._ask())
        if any(member.ready for member in self._members):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > _ALONE:
            if not self._room.workers:
                raise MTAnimateError(f"{self._nodes.no_room(self._room)}; the same command goes on when there is one")
            self._log("no worker has begun yet: do others use the cluster? 'ray status' on a node shows it")
            self._alone_since = now

    def _ask(self) -> _Member:
        import ray

        worker: Any = ray.remote(_Worker)
        actor = worker.options(
            num_cpus=self._room.cores,
            num_gpus=self._room.gpus,
            max_restarts=0,
            max_concurrency=_AT_ONCE["gpu" if self._room.gpus else "cpu"],
        ).remote()
        return _Member(actor, actor.versions.remote())

    def _welcome(self, member: _Member, packed: Any) -> int:
        """Hear what a new worker answers. Returns how many items it takes from now on.

        Raises InputError where it is of another version, or cannot work.
        """
        said, member.asked = _answer(member.asked), None
        if isinstance(said, _Died):
            self._missed(member, said)
        elif not member.node:
            member.node, member.node_id, theirs = said
            _check_same(f"node {member.node}", theirs, "this machine", versions(), "install the same version")
        elif isinstance(said, str):
            raise InputError(f"node {member.node}: {said}")
        else:
            first, identity = self._first = self._first or (member.node, said)
            _check_same(f"node {member.node}", said, f"node {first}", identity, "give all nodes the same")
            member.ready, self._failures = True, 0
        self._let_begin(packed)
        return _AT_ONCE["gpu" if self._room.gpus else "cpu"] * member.ready

    def _let_begin(self, packed: Any) -> None:
        """One worker begins before the others, who make the same choices."""
        known = [member for member in self._members if member.node and not member.ready]
        if self._first is None and any(member.asked for member in known):
            return
        for member in [member for member in known if not member.asked][: None if self._first else 1]:
            member.asked = member.actor.begin.remote(packed, self._first and self._first[1], os.getcwd())

    def _missed(self, member: _Member, died: "_Died") -> None:
        """A worker died before it was ready. Raises MTAnimateError where all do."""
        self._members.discard(member)
        self._failures += 1
        if self._failures >= MOST_DEATHS and not any(other.ready for other in self._members):
            raise MTAnimateError(
                f"workers of the cluster die before they can begin ({died.why}): is mtanimate installed on all nodes, "
                "and is there memory enough?"
            )

    def _bury(self, member: _Member | None, free: "deque[_Member]") -> None:
        if member in self._members:
            assert member is not None
            self._members.discard(member)
            self._log(f"a worker on node {member.node} was lost; what it was working on is done by another")
        while member in free:
            free.remove(member)  # type: ignore[arg-type]


def _check_same(whose: str, theirs: Identity, other: str, ours: Identity, what_to_do: str) -> None:
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise InputError(f"{whose}: {name} is {theirs.get(name)}, and {value} on {other}: {what_to_do}")


def _next(items: Iterator[T]) -> _Busy[T] | None:
    for item in items:
        return _Busy(item)
    return None


class _Died:
    """In place of an answer: the worker is gone. why: in a line."""

    def __init__(self, error: Exception) -> None:
        self.why = " ".join(str(error).split())[:300]


_END = object()


def _send(given: _Busy[T]) -> Any:
    """Give an item to a worker. It says nothing more until what it said has been heard."""
    assert given.member is not None
    perform = given.member.actor.perform.options(num_returns="streaming", _generator_backpressure_num_objects=1)
    return perform.remote(given.item, given.before)


def _heard(stream: Any) -> Any:
    """The next thing that a worker says: a value, _END, or _Died."""
    try:
        return _answer(next(stream))
    except StopIteration:
        return _END


def _answer(ref: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RaySystemError, RayTaskError

    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause or error  # noqa: B904 (the traceback of the worker is in it)
    except RaySystemError as error:
        what = " ".join(str(error).split())[:300]
        raise MTAnimateError(
            f"a worker cannot read what it is sent ({what}): install the same code on all nodes"
        ) from error
    except RayError as error:
        return _Died(error)
