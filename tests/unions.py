"""The members of unions, for suites that have a case for each."""

from typing import get_args


def kinds_of(union: object) -> list[str]:
    """The kinds of a union of tagged values, in their order."""
    return [
        kind
        for part in get_args(union)
        for kind in ([part.model_fields["kind"].default] if isinstance(part, type) else kinds_of(part))
    ]
