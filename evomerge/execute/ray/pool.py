"""The workers as the driver sees them: set up, lost, replaced, as many as the cluster has room for."""

import time
from typing import Any

import ray
from ray.exceptions import RayError

from evomerge.errors import RunError, SpecError
from evomerge.events import Incident, Workers
from evomerge.execute.ray.cluster import Cluster, rooms_for
from evomerge.execute.ray.member import Member
from evomerge.execute.ray.messages import Ready, unpacked
from evomerge.execute.ray.reasons import NODE_LOST, reason_of, verdict_of
from evomerge.execute.ray.worker import Factory, Worker
from evomerge.items import ItemTable
from evomerge.recipe import Parents
from evomerge.spec import RaySpec

COUNT = 5.0
"""Seconds between two counts of what the cluster has."""
PAUSES = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a worker is set up anew, after so many that could not be in a row."""
HOPELESS = 5
"""Workers in a row that could not be set up, and none was there before: the run cannot begin."""
DAMAGED = 3
"""The same for what the user must put right, with no worker left: the run cannot go on."""
PULSE = 5.0
"""Seconds after which a worker that has nothing to do is asked whether it is there."""
PROOF = 1.0
"""Seconds in which it turns out whether a worker that is gone had begun what it was handed."""


class Pool:
    """Keeps as many workers as are wanted, and counts what they cost.

    `parents` are the models that every worker must find on its machine.
    """

    def __init__(self, cluster: Cluster, spec: RaySpec, factory: Factory, parents: Parents) -> None:
        self._cluster = cluster
        self._spec = spec
        self._parents = parents
        self.members: list[Member] = []
        self.gpus = self._gpus()
        self._need = {"CPU": float(spec.cpus), "GPU": self.gpus}
        self._wanted, self._counted = 0, -COUNT
        self._factory = factory.beside(cluster.most_on_a_node(self._need), spec.cpus, self.gpus)
        self._misses, self._next_start, self._any = 0, 0.0, False
        self._table: ItemTable | None = None
        self._held, self._used = 0.0, 0.0

    @property
    def ready(self) -> list[Member]:
        """Those that have been set up."""
        return [member for member in self.members if member.ready is not None]

    @property
    def idle(self) -> list[Member]:
        """Those that could begin a work now."""
        return [member for member in self.ready if member.task is None]

    def keep(self) -> None:
        """Have workers set up until there are as many as are wanted."""
        self._count()
        now = time.monotonic()
        while len(self.members) < self._wanted and now >= self._next_start:
            options = {"num_cpus": self._spec.cpus, "num_gpus": self.gpus, "max_restarts": 0}
            actor: Any = ray.remote(Worker).options(**options).remote(self._factory)
            pulse = actor.here.remote()
            self.members.append(Member(actor, actor.start.remote(), pulse))
            if self._misses:  # One at a time, until one can be set up again.
                self.pause(self._misses)

    def welcome(self, member: Member, message: bytes) -> None:
        """Take a worker in that has been set up.

        Raises:
            SpecError: its machine has other models than the run was opened with, or other items than the first worker.
        """
        ready = unpacked(Ready, message)
        for name, parent in self._parents.models.items():
            if ready.parents.models[name].content() != parent.content():
                raise SpecError(f"{name} at {parent.shown()} is another model there than the run was opened with")
        self._table = self._table or ready.table
        if (change := ready.table.changes_since(self._table)) is not None:
            raise SpecError(f"{change} than for the first worker; all machines must see the same task files and data")
        member.ready, member.task, member.since = ready, None, time.monotonic()
        member.heard, member.begun = member.since, None
        self._misses, self._next_start, self._any = 0, 0.0, True

    def missed(self, member: Member, error: Exception) -> Incident:
        """A worker could not be set up: what is to be written down of it.

        Raises:
            SpecError, RunError: this is for a person to put right, and nobody else is there, or on the way.
        """
        self.remove(member)
        verdict, reason = verdict_of(error), reason_of(error)
        self._misses += reason != NODE_LOST
        self.pause(self._misses)
        others_try = any(each.ready is not None or each.begun is not None for each in self.members)
        if verdict is not None and not others_try and (self._misses >= DAMAGED or not self._any):
            raise verdict
        if self._misses >= HOPELESS and not others_try and not self._any:
            raise RunError(f"no worker could be set up: {reason}")
        return Incident(at=time.time(), stage="start", what=f"a worker could not be set up: {reason}")

    def pause(self, times: int) -> None:
        """Wait before the next one is set up, for longer the more often in a row it would have been in vain."""
        self._next_start = max(self._next_start, time.monotonic() + PAUSES[min(times, len(PAUSES) - 1)])

    def remove(self, member: Member) -> None:
        """Let a worker go, whatever it is doing."""
        self._settle(member)
        ray.kill(member.actor)

    def forget(self) -> None:
        """All are gone, with their cluster."""
        for member in list(self.members):
            self._settle(member)
        self._counted, self._misses, self._next_start = -COUNT, 0, 0.0

    def _settle(self, member: Member) -> None:
        """Count what it cost, for the last time."""
        self.members.remove(member)
        now = time.monotonic()
        self._held += now - member.since if member.ready is not None else 0.0
        self._used += now - member.begun if member.begun is not None and member.ready is not None else 0.0

    def hand(self, member: Member, message: bytes) -> None:
        """Have a worker begin a work."""
        member.begun, member.excused, member.is_there = time.monotonic(), 0.0, False
        member.pulse = member.actor.here.remote()
        member.task = member.actor.evaluate.remote(message)

    def take(self, member: Member) -> None:
        """A worker is done."""
        member.heard = time.monotonic()
        self._used += member.heard - (member.begun or member.heard)
        member.task, member.begun = None, None

    def call(self) -> None:
        """Ask those who have had nothing to do, and nothing to say, whether they are there."""
        for member in self.idle:
            if member.pulse is None and time.monotonic() - member.heard > PULSE:
                member.pulse = member.actor.here.remote()

    def hear(self, member: Member) -> RayError | None:
        """Take in the sign of life that a worker owes, or the news that there will be none."""
        pulse, member.pulse = member.pulse, None
        try:
            ray.get(pulse, timeout=PROOF)
        except RayError as error:
            member.is_there = False
            return error
        member.is_there, member.heard = True, time.monotonic()
        if member.ready is None and member.begun is None:  # Its process is there, and sets itself up.
            member.begun, member.excused = member.heard, 0.0
        return None

    def had_begun(self, member: Member) -> bool:
        """Whether a worker that is gone had lived to begin its task."""
        if member.pulse is not None:
            self.hear(member)
        return member.is_there

    def excuse(self, seconds: float) -> None:
        """Nobody has listened for so long."""
        for member in self.members:
            member.excused += seconds

    @property
    def wanted(self) -> int:
        """How many workers there should be, as far as the cluster has room."""
        self._count()
        return self._wanted

    def _gpus(self) -> float:
        if self._spec.gpus is not None:
            return self._spec.gpus
        return 1.0 if self._cluster.resources().get("GPU", 0.0) >= 1 else 0.0

    def _count(self) -> None:
        """Look how many workers the cluster has room for; a number that was asked for stands, and makes it grow."""
        if time.monotonic() - self._counted < COUNT or self._cluster.is_lost(at_once=True):
            return
        self._counted = time.monotonic()
        self._wanted = self._spec.workers or rooms_for(self._need, self._cluster.resources())

    def standing(self, queued: int) -> Workers:
        """How the workers stand."""
        now, ready = time.monotonic(), self.ready
        busy = [member for member in ready if member.task is not None]
        return Workers(
            at=time.time(),
            ready=len(ready),
            starting=len(self.members) - len(ready),
            busy=len(busy),
            queued=queued,
            held=self._held + sum(now - member.since for member in ready),
            used=self._used + sum(now - (member.begun or now) for member in busy),
            gpus=self.gpus,
        )
