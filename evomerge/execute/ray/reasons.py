"""What Ray's errors mean, in a line."""

from ray.exceptions import NodeDiedError, RayActorError, RayTaskError

from evomerge.errors import EvomergeError

MEANINGS = (
    ("ran out of memory", ("oom", "low on memory", "memory monitor")),
    ("its node was lost", ("node has died", "node was terminated", "node died", "raylet", "unexpected node death")),
    ("the connection to it broke", ("temporarily unavailable",)),
    ("it was killed, or crashed", ("worker process has died", "connection error code", "unexpectedly")),
)
"""What is said of a worker's end, by words in Ray's message. Ray's own wording of a kill lists memory as a guess."""
GUESSES = "some common causes include"
RAISED = "error raised in its creation task"
MOST = 300
"""Characters of a message that is quoted."""
NODE_LOST = "its node was lost"


def cause_of(error: Exception) -> Exception:
    """What was raised in the worker, if something was."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return cause if isinstance(cause, Exception) else error


def verdict_of(error: Exception) -> EvomergeError | None:
    """What the worker said that a person must put right, if it did."""
    cause = cause_of(error)
    return cause if isinstance(cause, EvomergeError) else None


def reason_of(error: Exception) -> str:
    """Why a worker did not answer, in a line."""
    if isinstance(error, RayActorError) and RAISED in str(error):
        # Ray quotes a traceback, whose last line says what was raised.
        return str(error).strip().splitlines()[-1].strip()[:MOST]
    if isinstance(error, RayActorError | NodeDiedError):
        text = str(error).lower().split(GUESSES)[0]
        return next((meaning for meaning, words in MEANINGS if any(word in text for word in words)), _line(error))
    cause = cause_of(error)
    return str(cause) if isinstance(cause, EvomergeError) else f"{type(cause).__name__}: {_line(cause)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST]
