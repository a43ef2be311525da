"""What items cost: the tokens that a model must read, and at most write, for each."""

from collections.abc import Mapping, Sequence

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from evomerge.errors import SpecError
from evomerge.items import POOLS, Pool, TaskItems


def with_costs(table: TaskItems, requests: Mapping[str, Sequence[Instance]], lm: HFLM) -> TaskItems:
    """The table with the tokens of every item, from its requests."""
    return table.model_copy(update={name: _counted(table.pool(name), requests, lm) for name in POOLS})


def _counted(pool: Pool, requests: Mapping[str, Sequence[Instance]], lm: HFLM) -> Pool:
    return pool.model_copy(update={"costs": tuple(tokens_of(requests[item], lm) for item in pool.ids)})


def tokens_of(instances: Sequence[Instance], lm: HFLM) -> int:
    """Tokens of an item's requests: each distinct context once, every continuation, and all that may be generated.

    Context and continuation are counted apart, so that a pair may come out a token off.
    """
    contexts = {instance.args[0] for instance in instances}
    read = sum(max(1, min(len(lm.tok_encode(text)), lm.max_length)) for text in contexts)
    return int(read) + sum(_follows(instance, lm) for instance in instances)


def _follows(instance: Instance, lm: HFLM) -> int:
    match instance.request_type:
        case "loglikelihood":
            return len(lm.tok_encode(instance.args[1], add_special_tokens=False))
        case "generate_until":
            settings = normalize_gen_kwargs(dict(instance.args[1]), lm.max_gen_toks)
            return int(settings["max_gen_toks"] * (instance.repeats or 1))
        case "loglikelihood_rolling":  # No continuation, but a token that goes before it.
            return 1
        case other:
            raise SpecError(
                f"task {instance.task_name}: its requests are of the kind {other}, which no model answers here"
            )
