"""The command line with the scorer of `troubled`: driver.py TROUBLES SECONDS search RUN.yaml OUT | resume OUT [WHERE].

It is a process of its own, so that it can be killed, and Ray is in it and nowhere else.
"""

import sys
from pathlib import Path

from troubled import Troubled

from evomerge.assemble import Elsewhere, resume, search
from evomerge.errors import EvomergeError
from evomerge.spec import load_run
from evomerge.watch import conduct


def main(folder: str, seconds: str, verb: str, *rest: str) -> None:
    scorer = Troubled(folder, float(seconds))
    if verb == "search":
        spec, out = load_run(Path(rest[0])), Path(rest[1])
        conduct(out, lambda listener: search(spec, out, scorer=scorer, listener=listener))
    else:
        out = Path(rest[0])
        elsewhere = Elsewhere(executor=rest[1] if len(rest) > 1 else None)
        conduct(out, lambda listener: resume(out, scorer=scorer, listener=listener, elsewhere=elsewhere))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EvomergeError as error:
        print(f"evomerge: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
