"""What a chat template makes of a system message."""

from jinja2 import TemplateError
from lm_eval.models.huggingface import HFLM

from evomerge.score.bank import TaskBank

BOTH = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]


def unheard(bank: TaskBank, lm: HFLM) -> str | None:
    """The remark that nobody hears a task's system message: lm-eval leaves it out where the template refuses it."""
    if not bank.use.chat_template or not (bank.use.system or any(t.config.description for t in bank.leaves.values())):
        return None
    try:
        lm.tokenizer.apply_chat_template(BOTH, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        what = "system" if bank.use.system else "the task's description"
        reason = " ".join(str(error).split())[:100]
        return (
            f"{what} of {bank.name} is left out, as lm-eval does: the chat template takes no system message ({reason})"
        )
    return None
