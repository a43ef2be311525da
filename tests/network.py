"""Two hosts on this machine, each in a network namespace of its own, with a cable between them that can be cut."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A network namespace with one interface, at an address that the other host reaches."""

    name: str
    address: str

    def within(self, line: list[str]) -> list[str]:
        """A command line that runs there."""
        return ["ip", "netns", "exec", self.name, *line]

    def unplug(self) -> None:
        """From now on nothing comes in or goes out, and nobody is told."""
        _ip("-n", self.name, "link", "set", "eth", "down")


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host] | tuple[None, None]]:
    """Both, or neither where the system does not let us make them."""
    subnet = f"10.231.{os.getpid() % 250}"
    hosts = Host(f"evomerge-{os.getpid()}-a", f"{subnet}.1"), Host(f"evomerge-{os.getpid()}-b", f"{subnet}.2")
    with contextlib.ExitStack() as made:
        try:
            for host in hosts:
                _ip("netns", "add", host.name)
                made.callback(_ip, "netns", "delete", host.name)
            one, other = hosts
            _ip("-n", one.name, "link", "add", "eth", "type", "veth", "peer", "name", "eth", "netns", other.name)
            for host in hosts:
                _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth")
                for link in ("lo", "eth"):
                    _ip("-n", host.name, "link", "set", link, "up")
        except (OSError, subprocess.CalledProcessError):
            made.close()
            yield None, None
            return
        yield hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
