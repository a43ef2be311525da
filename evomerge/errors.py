"""The errors that stop a run, each with the exit status it ends the process with."""


class EvomergeError(Exception):
    """Anything that a user is told in one line, without a traceback."""

    exit_status = 1


class SpecError(EvomergeError):
    """What the user wrote, or pointed at, cannot be used: the file, the field, the value and the way out."""

    exit_status = 2


class RunError(EvomergeError):
    """The run cannot go on (a full disk, no worker left); what was measured so far is safe."""


class DeviceError(RunError):
    """A device has stopped working; a candidate may have done that, and in a new process it works again."""


class ReplayMismatch(RunError):
    """The optimiser does not ask again what the journal says it asked."""


class Interrupted(EvomergeError):
    """Ctrl-C or SIGTERM: the run stopped between two candidates and can be resumed."""

    exit_status = 130
