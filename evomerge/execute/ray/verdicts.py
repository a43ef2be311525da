"""When what workers met is no longer theirs, nor a candidate's: the run cannot go on."""

import time
from collections.abc import Collection

from evomerge.errors import DeviceError, EvomergeError
from evomerge.execute.ray.jobs import Job
from evomerge.execute.ray.member import Member

ALL_ALIKE = 3
"""Works in a row, more than there are workers, that met what would befall any: the run cannot go on."""


class Verdicts:
    """What workers met, one after another, that would befall any candidate, or any on their device."""

    def __init__(self) -> None:
        self._met: list[tuple[Job, float]] = []

    def __len__(self) -> int:
        """How many there are since somebody did a work."""
        return len(self._met)

    def clear(self) -> None:
        """Somebody did a work."""
        self._met = []

    def add(self, job: Job) -> None:
        """One more worker met such a thing, over this work."""
        self._met.append((job, time.monotonic()))

    def are_final(self, last: EvomergeError, members: Collection[Member], wanted: int) -> bool:
        """Whether all met the same: not over one candidate alone, and nobody is at a work from before."""
        jobs, since = {job for job, _ in self._met}, self._met[0][1]
        if isinstance(last, DeviceError) and len(jobs) == 1:
            return False
        if any(member.task is not None and (member.begun or since) < since for member in members):
            return False
        return len(self._met) >= ALL_ALIKE + wanted


def may_break(job: Job, member: Member, members: Collection[Member]) -> bool:
    """Whether a work may be why a device broke over it: it did so on one more, or there is no other."""
    is_one_more = member.place not in job.broken
    job.broken.add(member.place)
    return is_one_more or {each.place for each in members} <= job.broken
