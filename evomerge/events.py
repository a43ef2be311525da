"""What happens in a run, one value an event: the only things a journal holds."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from evomerge.learn.descent import Course
from evomerge.learn.gauss_newton import NewtonCourse
from evomerge.recipe import Recipe
from evomerge.spec import Budget, ExecutorKind
from evomerge.trial import Draw, Failure, LayerEvaluations, Observation, Origin, Purpose, Seconds
from evomerge.values import Genome, Tagged, Value


class Stamped(Tagged):
    """An event with its time: `at` by the wall clock, for people to read; it may be set meanwhile.

    `elapsed` is in seconds since its process took the run up, by a clock that nobody sets: durations are differences
    of these. Whoever records the event fills it in; old journals have none.
    """

    at: float
    elapsed: float | None = None


class Created(Tagged):
    """The run folder was made: the first event of its journal. `files` are digests of what the run rests on."""

    kind: Literal["created"] = "created"
    of_process: ClassVar[bool] = True
    files: dict[str, str]


class Opened(Stamped):
    """A process took the run up, with these means.

    As every event does, it says whether it tells of a process (`of_process`) or of the search.
    """

    kind: Literal["opened"] = "opened"
    of_process: ClassVar[bool] = True
    budget: Budget
    executor: ExecutorKind
    device: str
    versions: dict[str, str] = Field(default_factory=dict)


class Asked(Tagged):
    """A candidate was proposed. `recipe` is written out only where no genome says it.

    `tradeoff` are the weights of the objectives that a learned one was learned for.
    """

    kind: Literal["asked"] = "asked"
    of_process: ClassVar[bool] = False
    number: int
    origin: Origin
    genome: Genome | None
    digest: str
    recipe: Recipe | None = None
    name: str | None = None
    generation: int = 0
    tradeoff: dict[str, float] | None = None


class Assigned(Tagged):
    """A work item: a candidate was to be scored on a draw of items."""

    kind: Literal["assigned"] = "assigned"
    of_process: ClassVar[bool] = False
    work: int
    number: int
    draw: Draw
    purpose: Purpose


class MarksAt(Value):
    """Where the marks of an evaluation lie in `responses/`: byte offset, counts by task and metric, checksum."""

    offset: int
    counts: dict[str, dict[str, int]]
    crc: int


class ScoresAt(Value):
    """Where the scores of an evaluation lie in `responses/`: byte offset, how many each drawn item has, checksum."""

    offset: int
    counts: dict[str, tuple[int, ...]]
    crc: int


class Evaluated(Stamped):
    """A work item came back, with marks, and scores where they were asked for; or with why there are none."""

    kind: Literal["evaluated"] = "evaluated"
    of_process: ClassVar[bool] = False
    work: int
    number: int
    marks: MarksAt | None = None
    scores: ScoresAt | None = None
    failure: Failure | None = None
    seconds: Seconds = Seconds()
    layer_evaluations: LayerEvaluations | None = None
    worker: str = ""


class Incident(Stamped):
    """Something went wrong that was not, or need not have been, a candidate's doing; the run goes on.

    `stage` is what was being done: a worker was set up (`start`), did a `work`, or nothing (`idle`), or the `cluster`
    was spoken to.
    """

    kind: Literal["incident"] = "incident"
    of_process: ClassVar[bool] = True
    stage: Literal["start", "work", "idle", "cluster"] = "work"
    what: str
    work: int | None = None
    worker: str = ""


class Workers(Stamped):
    """How the workers stood: those ready, those being set up, those at work, and works that none had begun.

    `held` and `used` are seconds since the process took the run up, summed over workers: from when each was ready, and
    of these with a work. Each has `gpus` accelerators, none on a CPU.
    """

    kind: Literal["workers"] = "workers"
    of_process: ClassVar[bool] = True
    ready: int
    starting: int
    busy: int
    queued: int
    held: float
    used: float
    gpus: float = 0.0


class Told(Tagged):
    """The optimiser was told these, in this order, in one call."""

    kind: Literal["told"] = "told"
    of_process: ClassVar[bool] = False
    observations: tuple[Observation, ...]


class Learned(Stamped):
    """A look at coefficients that are being learned: how far their descent has come.

    `descent` counts descents, each of which goes by its `course`, from the candidates that it has `begun` with; `items`
    are what all of them have cost so far, in forward passes of one item, of which a slope counts three, and slopes of
    each item's own as many as the course says. `losses` are means over held-out items by objective, of the loss that it
    is judged by, at the average iterate or point, which was `best` after that many steps. `state` is the digest of all
    that the descent is. Under a guard there is by how much the text's loss was above what it is compared with, in nats
    a token (`excess`), and how much it pulled (`pull`).
    """

    kind: Literal["learned"] = "learned"
    of_process: ClassVar[bool] = False
    descent: int
    begun: tuple[int, ...]
    step: int
    course: Course | NewtonCourse
    items: int
    losses: dict[str, float]
    best: int
    state: str
    excess: float | None = None
    pull: float | None = None


class Ended(Stamped):
    """A stopping rule ended the search before its budget was spent."""

    kind: Literal["ended"] = "ended"
    of_process: ClassVar[bool] = False
    reason: str


class Extended(Stamped):
    """The run got another budget, and goes on if it had ended."""

    kind: Literal["extended"] = "extended"
    of_process: ClassVar[bool] = True
    budget: Budget


class Confirmed(Stamped):
    """These candidates and all baselines have been scored on the confirm items."""

    kind: Literal["confirmed"] = "confirmed"
    of_process: ClassVar[bool] = False
    numbers: tuple[int, ...]


class Closed(Stamped):
    """The process let go of the run."""

    kind: Literal["closed"] = "closed"
    of_process: ClassVar[bool] = True
    state: Literal["stopped", "finished", "failed"]
    reason: str = ""


Event: TypeAlias = Annotated[
    Created
    | Opened
    | Asked
    | Assigned
    | Evaluated
    | Incident
    | Workers
    | Told
    | Learned
    | Ended
    | Extended
    | Confirmed
    | Closed,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
