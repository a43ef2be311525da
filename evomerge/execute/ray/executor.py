"""Evaluation by workers on Ray, which may be killed, hang, come and go."""

import contextlib
import math
import time
from collections.abc import Callable

import ray
from ray.exceptions import RayError

from evomerge.errors import DeviceError, EvomergeError, RunError
from evomerge.events import Incident, Workers
from evomerge.execute.ray.cluster import Cluster
from evomerge.execute.ray.jobs import Jobs, Piece
from evomerge.execute.ray.member import Member
from evomerge.execute.ray.messages import packed, unpacked
from evomerge.execute.ray.pace import Pace
from evomerge.execute.ray.patience import Patience
from evomerge.execute.ray.pool import Pool
from evomerge.execute.ray.reasons import NODE_LOST, reason_of, verdict_of
from evomerge.execute.ray.shards import shards_of
from evomerge.execute.ray.verdicts import Verdicts, may_break
from evomerge.execute.ray.worker import Factory
from evomerge.items import ItemTable
from evomerge.recipe import Parents
from evomerge.spec import RaySpec
from evomerge.trial import Evaluation, Failure, Work

TICK = 0.5
"""Seconds after which deadlines, the cluster and the pool are looked at, if nothing comes back before."""
AWAY = 3.0
"""Seconds between two looks after which nobody can be blamed for what was not heard."""
REPORT = 10.0
"""Seconds between two lines in the journal on how the workers stand, if none came or went."""
AT_REST = 1.0
"""The same where nothing is left to do: at the end of a search, say."""
REMIND = 30.0
"""Seconds between two remarks that nobody is there to work."""


class RayExecutor:
    """Hands works to whoever is free, the items of each to `split` workers, if there are enough of them.

    A work whose worker was lost is done again by another one, until `spec.deaths` were: then its candidate has failed.
    What a worker says of a candidate is not asked again, unless it is `passing`. A lost cluster is waited for.

    Raises:
        SpecError: there is no cluster, or the first worker found that models or tasks cannot be used.
        RunError: no worker could be set up, or the cluster was lost meanwhile.
    """

    def __init__(self, spec: RaySpec, factory: Factory, parents: Parents, say: Callable[[str], None]) -> None:
        self.split = 1
        """In how many pieces a work is cut; see `pieces_for`."""
        self._say = say
        self._jobs = Jobs(spec.deaths)
        self._pace = Pace(spec.deadline)
        self._tasks: dict[Member, Piece] = {}
        self._news: list[Evaluation | Incident | Workers] = []
        self._verdict: EvomergeError | None = None
        """Why the run cannot go on; it is raised once all news is told."""
        self._reminded = self._reported = self._looked = time.monotonic()
        self._ready = 0
        self._verdicts = Verdicts()
        self._is_away = False
        self._cluster = Cluster(spec.address, (spec.workers or 0) * spec.cpus, say)
        self._patience = Patience(ours=self._cluster.is_ours)
        try:
            self.pool = Pool(self._cluster, spec, factory, parents)
            """The workers; none while the cluster is lost."""
            say("setting workers up")
            self.table = self._set_up()
        except BaseException as error:
            self._cluster.close()
            if not isinstance(error, RayError):
                raise
            raise RunError(f"the cluster was lost before the run began: {reason_of(error)}; see: ray status") from error

    @property
    def free(self) -> int:
        """How many works idle workers could begin; at least one where none is in hand, even with no worker there."""
        idle = len(self.pool.idle) - len(self._jobs)
        return max(math.ceil(idle / self.split), 0 if self._is_busy else 1)

    @property
    def _is_busy(self) -> bool:
        return bool(len(self._jobs)) or any(not piece.job.is_over for piece in self._tasks.values())

    def submit(self, work: Work) -> None:
        """Hand a work over; whoever is idle gets it at once."""
        self._jobs.add(work, shards_of(work, self.table, self.split), self.table)
        self._guarded(self._dispatch)

    def wait(self, timeout: float | None) -> list[Evaluation | Incident | Workers]:
        """Block until something is there, or the time is up; nothing if there is nothing to wait for.

        Raises:
            SpecError, RunError: the workers met what a person must put right.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        while self._is_busy and not self._news and self._verdict is None:
            left = TICK if ends is None else min(TICK, ends - time.monotonic())
            if left < 0:
                break
            self._turn(left)
            self._report()
        self._report()
        if self._verdict is not None and not self._news:
            raise self._verdict
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Let the workers go, whatever they are doing."""
        for member in list(self.pool.members):
            with contextlib.suppress(RayError):
                self.pool.remove(member)
        self._cluster.close()

    def _set_up(self) -> ItemTable:
        """Wait for the first worker; the items, as it has them."""
        while self._verdict is None:
            self._turn(TICK)
            for member in self.pool.ready:
                assert member.ready is not None, "it has been set up"
                return member.ready.table
        raise self._verdict

    def _turn(self, seconds: float) -> None:
        """Take in what is there, see that all is well, hand out, and wait so long for the next to speak."""
        before = len(self._news)
        self._guarded(lambda: self._listen(0.0))
        self._guarded(self._look)
        self._guarded(self._dispatch)
        if len(self._news) == before and self._verdict is None:
            self._guarded(lambda: self._listen(seconds))

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something with the cluster; one that answers oddly is another than it was."""
        try:
            act()
        except RayError:
            self._cluster.give_up()

    def _look(self) -> None:
        """See that cluster and workers are there, and that nobody hangs."""
        now = time.monotonic()
        unseen = now - self._looked if now - self._looked > AWAY else 0.0
        self.pool.excuse(unseen)
        self._looked = now
        if self._cluster.is_lost():
            self._regain()
        alone = self._is_away or not self._cluster.has_nodes(workers=bool(self.pool.ready))
        self._verdict = self._verdict or self._patience.waits(alone=alone, unseen=unseen)
        if self._is_away:
            return
        self.pool.keep()
        self.pool.call()
        for member in list(self.pool.members):
            self._check(member, now)
        if not self.pool.ready and now - self._reminded > REMIND:
            self._reminded = now
            self._say(f"no worker is there yet; {self.pool.wanted} are waited for, see: ray status")

    def _check(self, member: Member, now: float) -> None:
        """See that a worker does not hang."""
        seconds, piece = member.working(now), self._tasks.get(member)
        if piece is not None and seconds > self._pace.deadline(piece.size, first=not member.works):
            self._lost(member, f"it hung: no answer after {seconds:.0f} s", counts=member.is_there)
        elif member.ready is None and seconds > self._pace.unknown:
            self._missed(member, TimeoutError(f"it hung: not set up after {seconds:.0f} s"))

    def _dispatch(self) -> None:
        """Give those who are free something to do."""
        idle = [] if self._cluster.is_lost() else self.pool.idle
        for member, piece in zip(idle, self._jobs.next(len(idle)), strict=False):
            self._tasks[member] = piece  # First: what cannot be handed over is found there.
            self.pool.hand(member, packed(piece.work))

    def _listen(self, seconds: float) -> None:
        """Take in what workers have to say; wait so long for the first to speak."""
        pulses = {member.pulse: member for member in self.pool.members if member.pulse is not None}
        tasks = {member.task: member for member in self.pool.members if member.task is not None}
        owing = [*pulses, *tasks]
        if not owing:
            time.sleep(seconds)
            return
        spoken, _ = ray.wait(owing, num_returns=1, timeout=seconds)
        if spoken:
            spoken, _ = ray.wait(owing, num_returns=len(owing), timeout=0)
        for reference in spoken:
            if reference in pulses and pulses[reference].pulse == reference:
                self._heard(pulses[reference])
        for reference in spoken:
            if reference in tasks and tasks[reference] in self.pool.members:
                self._take(tasks[reference])

    def _heard(self, member: Member) -> None:
        """A sign of life has come, or the news that a worker with nothing to do is gone."""
        error = self.pool.hear(member)
        if error is None or member.task is not None or self._cluster.is_lost(at_once=True):
            return  # Of one with a task its answer will say what has become of it, and of all of them `_look`.
        self.pool.remove(member)
        self._news.append(Incident(at=time.time(), stage="idle", what=reason_of(error), worker=member.name))

    def _take(self, member: Member) -> None:
        """A worker has answered, or is no more."""
        try:
            message: bytes = ray.get(member.task)
            if member.ready is None:
                self.pool.welcome(member, message)
                return
        except Exception as error:  # noqa: BLE001  Whatever a worker raises, or Ray for it, is told of the worker.
            if self._cluster.is_lost(at_once=True):
                return  # With all the others: see `_look`.
            if member.ready is None:
                self._missed(member, error)
            else:
                self._failed(member, error)
            return
        self._answered(member, unpacked(Evaluation, message))

    def _answered(self, member: Member, evaluation: Evaluation) -> None:
        piece = self._tasks.pop(member)
        self.pool.take(member)
        if isinstance(evaluation.outcome, Failure) and evaluation.outcome.passing:
            self._again(piece, evaluation.outcome.reason, member.name, counts=True)
            return
        self._verdicts.clear()
        self._patience.is_rewarded()
        if not isinstance(evaluation.outcome, Failure):
            self._pace.note(evaluation.seconds, piece.size)
            member.works += 1
        whole = self._jobs.answered(piece, evaluation)
        self._news += [whole] if whole is not None else []

    def _missed(self, member: Member, error: Exception) -> None:
        """A worker could not be set up."""
        try:
            self._news.append(self.pool.missed(member, error))
        except EvomergeError as verdict:
            self._verdict = verdict

    def _failed(self, member: Member, error: Exception) -> None:
        """A worker died, or met what is no candidate's doing, or may be."""
        verdict, reason = verdict_of(error), reason_of(error)
        if verdict is not None:
            self._judge(verdict, member, reason)
        elif not self.pool.had_begun(member):
            self._lost(member, f"{reason}, before it had begun", counts=False)
        else:
            self._lost(member, reason, counts=reason != NODE_LOST)

    def _judge(self, verdict: EvomergeError, member: Member, reason: str) -> None:
        """A worker met what would befall any candidate, or any on its device."""
        job = self._tasks[member].job
        may_be_its_doing = isinstance(verdict, DeviceError) and may_break(job, member, self.pool.ready)
        self._lost(member, reason, counts=may_be_its_doing)
        self.pool.pause(len(self._verdicts))
        self._verdicts.add(job)
        if self._verdicts.are_final(verdict, self.pool.ready, self.pool.wanted):
            self._verdict = verdict

    def _lost(self, member: Member, reason: str, *, counts: bool) -> None:
        self._again(self._tasks.pop(member), reason, member.name, counts=counts)
        self.pool.remove(member)

    def _again(self, piece: Piece, reason: str, worker: str, *, counts: bool) -> None:
        """Have a piece done by another worker, unless too many were lost over it."""
        ended = self._jobs.lost(piece, reason, worker, counts=counts)
        work = piece.work.id
        self._news.append(Incident(at=time.time(), stage="work", what=reason, work=work, worker=worker))
        self._news += [ended] if ended is not None else []

    def _regain(self) -> None:
        """Find the cluster again; what was being done on it is done again."""
        if not self._is_away:
            self._is_away = True
            self._verdict = self._verdict or self._patience.loses()
            self._say("the cluster is lost; looking for it")
            self._news.append(Incident(at=time.time(), stage="cluster", what="the cluster was lost"))
            for member, piece in self._tasks.items():
                ended = self._jobs.lost(piece, NODE_LOST, member.name, counts=False)
                self._news += [ended] if ended is not None else []
            self._tasks = {}
            self.pool.forget()
        if self._verdict is None and self._cluster.reconnect():
            self._is_away = False
            self._say("the cluster is there again")
        elif self._cluster.is_ours:
            self._verdict = self._verdict or self._patience.loses()

    def _report(self) -> None:
        """Write down how the workers stand, if it has changed or was long ago."""
        ready, now = len(self.pool.ready), time.monotonic()
        interval = REPORT if self._is_busy else AT_REST
        if ready != self._ready or now - self._reported > interval:
            self._ready, self._reported = ready, now
            self._news.append(self.pool.standing(len(self._jobs)))
