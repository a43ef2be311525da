"""What a store makes of a run folder: old ones, those being written, those that were tampered with at random."""

import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from journals import (
    JOURNAL,
    MARKS,
    SCORES,
    cut,
    end_of_marks,
    end_of_scores,
    events_of,
    make_older,
    raw_lines,
    write_journal,
)
from simulated import Plan, begin, simulator
from timed import EIGHT_ITEMS, WORLDS

from evomerge.errors import EvomergeError, SpecError
from evomerge.events import Assigned, Closed, Confirmed, Evaluated, Event, Opened
from evomerge.execute import InlineExecutor
from evomerge.recipe import Recipe
from evomerge.results import Results
from evomerge.session import Session
from evomerge.space import bind
from evomerge.spec import Budget, CmaSpec
from evomerge.store import RunStore, StageOf, digest
from evomerge.trial import Candidate, Draw, Failure


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some candidates that were put to draws, with scores, and whole pools; the last work is still open."""
    folder = tmp_path_factory.mktemp("toy") / "RUN"
    plan = Plan(EIGHT_ITEMS, Budget(evaluations=9), seed=1, optimizer=CmaSpec(population=8, told="loss"))
    store = begin(WORLDS, plan, folder)
    session = Session(store, InlineExecutor(simulator(WORLDS, store)))
    session.record(Opened(at=1.0, budget=session.state.budget, executor="inline", device="cpu"))
    for number in range(9):
        recipe = proposed(session, number)
        draw = Draw(pool="search", places={"task 0": tuple(range(number, number + 8))}, generation=0)
        for each in (draw, Draw(pool="confirm")):
            session.submit(session.assign(number, each, "search"), recipe)
            session.settle()
    session.record(Confirmed(at=2.0, numbers=(3, 4)))
    session.record(Closed(at=2.0, state="stopped"))
    session.assign(8, Draw(pool="search", places={"task 0": tuple(range(8))}), "refresh")
    store.close()
    return folder


def proposed(session: Session, number: int) -> Recipe:
    space = bind(session.store.file.spec.space, session.store.file.parents)
    genome = tuple(random.Random(number).uniform(0, 1) for _ in space.genes)
    recipe = space.decode(genome)
    session.propose(Candidate(number=number, genome=genome, recipe=recipe, origin="search"))
    return recipe


@pytest.fixture
def run(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "RUN"))


def told(run: Path) -> list[object]:
    """All that a store says."""
    store = RunStore(run)
    events = store.events()
    return [(e, store.marks(e), store.scores(e)) if isinstance(e, Evaluated) else (e, None, None) for e in events]


def grown(run: Path, more: int) -> None:
    with (run / MARKS).open("ab") as file:
        file.write(bytes(more))


def test_marks_of_what_was_in_flight_are_no_damage_and_cut_off_by_the_next_event(run: Path) -> None:
    whole, before = told(run), (run / MARKS).read_bytes()
    grown(run, 8 * 8)
    assert told(run) == whole
    store = RunStore(run, write=True)
    assert len((run / MARKS).read_bytes()) > len(before), "opened, and nothing is written yet"
    store.append(Closed(at=3.0, state="stopped"))
    store.close()
    assert (run / MARKS).read_bytes() == before
    grown(run, 8 * 200)
    with pytest.raises(SpecError, match="holds 1600 bytes that came after; .* cut .* to"):
        RunStore(run, write=True)


def test_scores_of_what_was_in_flight_are_no_damage_and_others_are(run: Path) -> None:
    whole, before = told(run), (run / SCORES).read_bytes()
    assert before, "what was put to a draw has scores"
    (run / SCORES).write_bytes(before + bytes(400))
    assert told(run) == whole
    store = RunStore(run, write=True)
    store.append(Evaluated(work=18, number=8, failure=Failure(stage="score", reason="it is a toy"), at=3.0))
    store.close()
    assert (run / SCORES).read_bytes() == before
    (run / SCORES).write_bytes(before + bytes(4))
    with pytest.raises(SpecError, match="holds 4 bytes that came after; .* cut responses/scores.f32 to"):
        RunStore(run)


def test_scores_are_those_of_the_items_of_the_draw(run: Path) -> None:
    store = RunStore(run, write=True)
    few = store.keep_scores({"task 0": ((0.5, -1.25),) * 7})
    at = store.keep_marks({"task 0": {"acc": (1.0,) * 8}})
    store.append(Evaluated(work=18, number=8, marks=at, scores=few, at=3.0))
    store.close()
    with pytest.raises(SpecError, match="its scores are not those of the items of task 0"):
        RunStore(run)


def test_a_line_that_is_being_written_is_no_damage(run: Path) -> None:
    whole, journal = told(run), (run / JOURNAL).read_bytes()
    last = raw_lines(run)[-1]
    for torn in (b"{", last[:-1], last[: len(last) // 2], bytes(40), last[:20] + bytes(9) + b"}\n"):
        (run / JOURNAL).write_bytes(journal + torn)
        store = RunStore(run)
        assert "cut short by a crash; it is dropped" in store.notes[0]
        assert told(run) == whole
    store = RunStore(run, write=True)
    store.append(Closed(at=3.0, state="stopped"))
    store.close()
    assert told(run)[:-1] == whole
    assert (run / JOURNAL).read_bytes().startswith(journal)


def test_what_a_writer_writes_is_read_meanwhile(run: Path) -> None:
    writer = RunStore(run, write=True)
    marks = {"task 0": {"acc": (1.0,) * 8}}
    before = len(told(run))
    scores = {"task 0": ((0.5, -1.25),) * 8}
    scored, at = writer.keep_scores(scores), writer.keep_marks(marks)
    assert len(told(run)) == before
    writer.append(Evaluated(work=18, number=8, marks=at, scores=scored, at=3.0))
    assert told(run)[-1][1:] == (marks, scores)
    assert (writer.marks(writer.events()[-1]), writer.scores(writer.events()[-1])) == (marks, scores)
    writer.close()


def test_a_run_is_whole_at_every_moment_that_it_is_written(run: Path) -> None:
    draw, marks = Draw(pool="search", places={"task 0": tuple(range(8))}), {"task 0": {"acc": (1.0,) * 8}}
    writer, done, lengths = RunStore(run, write=True), threading.Event(), set()

    def write() -> None:
        for work in count(19):
            writer.append(Assigned(work=work, number=8, draw=draw, purpose="refresh"))
            writer.append(Evaluated(work=work, number=8, marks=writer.keep_marks(marks), at=3.0))
            if done.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            lengths.add(len(RunStore(run).events()))
    finally:
        done.set()
        thread.join()
        writer.close()
    assert len(lengths) > 3


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_of_an_older_format_is_read_and_goes_on_in_its_own_form(number: int, run: Path) -> None:
    whole = told(run)[1:]
    make_older(run, number)
    assert told(run) == whole
    store = RunStore(run, write=True)
    store.append(Closed(at=3.0, state="finished"))
    store.close()
    assert told(run)[:-1] == whole
    assert all(line.startswith(b'{"crc":') for line in raw_lines(run))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda own: [e for e in own if not (e.kind == "asked" and e.number == 3)], "candidate 3 was not proposed"),
        (lambda own: [e for e in own if not (e.kind == "assigned" and e.work == 3)], "work 3 was not under way"),
        (lambda own: [e for e in own if not (e.kind == "evaluated" and e.work == 3)], "its marks begin at byte"),
        (lambda own: [e for each in own for e in [each] * (1 + (each.kind == "evaluated"))], "there twice"),
        (lambda own: [e for each in own for e in [each] * (1 + (each.kind == "asked"))], "there twice"),
        (lambda own: [*own, Confirmed(at=1.0, numbers=(77,))], "candidate 77 has no result"),
        (lambda own: [*own, Evaluated(work=10**30, number=-1, at=1.0)], "was not under way"),
    ],
)  # fmt: skip
def test_a_line_missing_in_an_older_journal_is_found_by_what_the_others_say(
    change: Callable[[list[Event]], list[Event]], words: str, run: Path
) -> None:
    make_older(run)
    write_journal(run, change(events_of(run)), chained=False)
    with pytest.raises(SpecError, match=words):
        RunStore(run)


@pytest.mark.parametrize("journal", [None, b"", bytes(5000)])
def test_marks_without_a_journal_are_refused_in_older_runs_too(journal: bytes | None, run: Path) -> None:
    make_older(run)
    (run / JOURNAL).unlink() if journal is None else (run / JOURNAL).write_bytes(journal)
    size = len((run / MARKS).read_bytes())
    with pytest.raises(SpecError, match=f"is {'missing' if journal is None else 'empty'}, but .* holds {size} bytes"):
        RunStore(run, write=True)
    (run / MARKS).write_bytes(b"")
    (run / SCORES).unlink()
    assert RunStore(run).events() == [], "it was begun, and nothing more"


def test_items_that_are_not_those_that_marks_are_of_are_found_in_older_runs(run: Path) -> None:
    make_older(run)
    path = run / "responses/items.json"
    plain = json.loads(path.read_text())
    for pool in ("search", "confirm"):
        for row in ("ids", "clusters", "golds"):
            plain["tasks"]["task 0"][pool][row].pop()
    path.write_text(json.dumps(plain))
    with pytest.raises(SpecError, match="marks are not those of the items"):
        RunStore(run)


def test_a_run_goes_on_from_where_the_message_says_to_cut(run: Path, toy: Path) -> None:
    lines = raw_lines(run)
    (run / JOURNAL).write_bytes(b"".join([*lines[:20], lines[21], *lines[22:]]))
    with pytest.raises(SpecError, match="damaged in line 21") as found:
        RunStore(run)
    end = max(map(end_of_marks, lines[:20]))
    scored = max(map(end_of_scores, lines[:20]))
    assert f"cut {JOURNAL} before that line and {MARKS} to {end} bytes, {SCORES} to {scored}" in str(found.value)
    (run / JOURNAL).write_bytes(b"".join(lines[:20]))
    os.truncate(run / MARKS, end)
    os.truncate(run / SCORES, scored)
    assert told(run) == told(toy)[:20]


def test_every_place_that_a_kill_may_cut_at_is_read(run: Path, toy: Path) -> None:
    whole = told(toy)
    for kept in range(len(whole), 0, -1):
        cut(run, kept, b'{"line":')
        assert told(run) == whole[:kept]


def test_a_stage_belongs_to_the_run_that_it_was_begun_in(toy: Path, tmp_path: Path) -> None:
    whole, stages = RunStore(toy), tmp_path / "whole/stages.yaml"
    stages.parent.mkdir()
    stages.write_text("stages: [one]")
    stage = StageOf(digest=digest(stages.read_bytes()), folder="1-one")
    RunStore.create(tmp_path / "whole/1-one", whole.file.model_copy(update={"stage": stage}), whole.table).close()
    shutil.copytree(tmp_path / "whole/1-one", tmp_path / "alone")
    for folder in ("whole/1-one", "alone"):
        assert len(RunStore(tmp_path / folder).events()) == 1
    shutil.copytree(tmp_path / "alone", tmp_path / "whole/2-other")
    with pytest.raises(SpecError, match="2-other was 1-one when it began; give it back that name"):
        RunStore(tmp_path / "whole/2-other")
    stages.write_text("stages: [two]")
    with pytest.raises(SpecError, match="stages.yaml was changed since .*1-one began; restore it"):
        RunStore(tmp_path / "whole/1-one")


def test_the_copy_of_a_calibration_must_be_what_it_was(toy: Path, tmp_path: Path) -> None:
    whole = RunStore(toy)
    source = ROOT / "fitness/demo/calibration.npz"
    estimator = whole.file.spec.fitness.estimator.model_copy(update={"calibration": str(source)})
    fitness = whole.file.spec.fitness.model_copy(update={"estimator": estimator})
    file = whole.file.model_copy(update={"spec": whole.file.spec.model_copy(update={"fitness": fitness})})
    RunStore.create(tmp_path / "RUN", file, whole.table).close()
    copy = tmp_path / "RUN/calibration.npz"
    assert RunStore(tmp_path / "RUN").calibration is not None
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(SpecError, match="calibration.npz was changed"):
        RunStore(tmp_path / "RUN")
    copy.unlink()
    with pytest.raises(SpecError, match="calibration.npz is missing"):
        RunStore(tmp_path / "RUN")


@pytest.fixture
def anothers(toy: Path) -> Iterator[Path]:
    """A run folder of somebody else, which may be read only."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(toy, Path(folder) / "RUN"))
        Path(folder).chmod(0o755)
        for path in (run, *run.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield run


@contextmanager
def powerless() -> Iterator[None]:
    """Root may read and write everything; be nobody meanwhile."""
    mine = os.geteuid()
    os.seteuid(65534 if mine == 0 else mine)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_run_that_may_only_be_read_is_read_and_not_gone_on_with(anothers: Path, toy: Path) -> None:
    whole = told(toy)
    with powerless():
        assert told(anothers) == whole
        with pytest.raises(SpecError, match="cannot be written .* go on with a copy"):
            RunStore(anothers, write=True)
        assert not RunStore.in_use(anothers)
    (anothers / "lock").unlink()
    with powerless(), pytest.raises(SpecError, match="cannot be written"):
        RunStore(anothers, write=True)
    assert not (anothers / "lock").exists()


@pytest.mark.parametrize("name", [".", "responses", JOURNAL, MARKS, "spec.yaml", "responses/items.json"])
def test_what_may_not_be_read_is_named(name: str, anothers: Path) -> None:
    (anothers / name).chmod(0)
    with powerless(), pytest.raises(SpecError, match=f"{'' if name == '.' else name}.* cannot be read .Permission"):
        RunStore(anothers)
    (anothers / name).chmod(0o755)


def mutated(rng: random.Random, run: Path) -> None:
    """Bytes or lines of one file changed, moved, lost."""
    name = rng.choice([JOURNAL, JOURNAL, JOURNAL, MARKS, SCORES, "spec.yaml", "responses/items.json"])
    raw = (run / name).read_bytes()
    a, b = sorted(rng.randrange(len(raw)) for _ in range(2))
    lines = (
        raw.splitlines(keepends=True)
        if name not in (MARKS, SCORES)
        else [raw[i : i + 64] for i in range(0, len(raw), 64)]
    )
    i, j = (rng.randrange(len(lines)) for _ in range(2))
    kinds: list[Callable[[], bytes]] = [
        lambda: raw[:a] + bytes([rng.randrange(256)]) + raw[a + 1 :],
        lambda: raw[:a] + raw[b:],
        lambda: raw[:a] + bytes(b - a) + raw[b:],
        lambda: raw[:a] + raw[a:b] + raw[a:],
        lambda: b"".join(lines[:i] + lines[i + 1 :]),
        lambda: b"".join([*lines[:i], lines[j], *lines[i:]]),
        lambda: b"".join(lines[:i] + lines[j : j + 1] + lines[i + 1 :]),
        lambda: raw[:a],
        lambda: raw + raw[a:b],
    ]
    (run / name).write_bytes(rng.choice(kinds)())


def test_random_damage_is_refused_or_takes_lines_from_the_end_only(run: Path, toy: Path) -> None:
    rng, whole = random.Random(1), told(toy)
    refusals = 0
    for _ in range(120):
        shutil.copytree(toy, run, dirs_exist_ok=True)
        mutated(rng, run)
        try:
            found = told(run)
        except SpecError as error:
            refusals += 1
            assert "\n" not in str(error)
            continue
        assert found == whole[: len(found)]
    assert refusals > 80


def test_random_damage_to_older_runs_is_no_crash(run: Path, toy: Path, tmp_path: Path) -> None:
    old = make_older(Path(shutil.copytree(toy, tmp_path / "old")))
    spec = yaml.safe_load((old / "spec.yaml").read_text())
    (old / "spec.yaml").write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in spec.items()))
    rng = random.Random(2)
    for _ in range(150):
        shutil.copytree(old, run, dirs_exist_ok=True)
        mutated(rng, run)
        try:
            Results(RunStore(run)).to_json()
        except EvomergeError as error:
            assert "\n" not in str(error)
