"""What a descent is, kept beside the journal so that a run goes on from there: at its last look, and since."""

import contextlib
from pathlib import Path

from evomerge.arrays import SUFFIX, digest_of_bytes
from evomerge.errors import SpecError
from evomerge.store.whole import write_whole

FOLDER = "learned"
LATEST = "latest"
HEAD = 71
"""Bytes of the digest that the latest state begins with."""


class LearnedStates:
    """The states of a run's descents, in a folder of its own; each is there as a whole or not at all."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder = run / FOLDER

    def keep(self, content: bytes) -> str:
        """Write the state of a look; its digest, for the journal.

        Raises:
            RunError: the disk is full or failing.
        """
        digest = digest_of_bytes(content)
        write_whole(self._run, FOLDER, self._name(digest), content)
        return digest

    def keep_latest(self, content: bytes) -> None:
        """Write the state since the last look, in place of the one before it.

        Raises:
            RunError: the disk is full or failing.
        """
        write_whole(self._run, FOLDER, LATEST, digest_of_bytes(content).encode() + content)

    def forget_all_but(self, digest: str) -> None:
        """Remove the states of looks before the one with this digest."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.name != self._name(digest):
                path.unlink(missing_ok=True)

    def read(self, digest: str) -> bytes:
        """The state of a look.

        Raises:
            SpecError: it is missing, or was changed.
        """
        path = self._folder / self._name(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SpecError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from None
        if digest_of_bytes(content) != digest:
            raise SpecError(f"{path} was cut or changed; restore it from a copy")
        return content

    def read_latest(self) -> bytes | None:
        """The state since the last look; None if there is none that is whole: the steps since are made again."""
        with contextlib.suppress(OSError):
            content = (self._folder / LATEST).read_bytes()
            if content[:HEAD] == digest_of_bytes(content[HEAD:]).encode():
                return content[HEAD:]
        return None

    def _name(self, digest: str) -> str:
        return digest.removeprefix("sha256:") + SUFFIX
