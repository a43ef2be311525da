"""What lies in a model folder beside its weights: what belongs to the model, and goes where a merge of it goes."""

import shutil
from pathlib import Path

from evomerge.errors import SpecError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
DISTRIBUTED = "shard-*-model-*-of-*.safetensors"
GENERATION = "generation_config.json"
# Content addresses rest on these and the weights: another name here would give old runs other parents.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
)
TEMPLATES = "additional_chat_templates"
"""A folder of chat templates by name, the only folder that belongs to a model."""
WEIGHTS = ".safetensors .safetensors.index.json .bin .bin.index.json .pt .pth .ckpt .h5 .msgpack .onnx .gguf .pkl .npz"
ENDINGS = tuple(WEIGHTS.split())
ABOUT = (
    "readme.md",
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "recipe.yaml",
    "run.yaml",
    "reproduce.json",
    "mergekit.yml",
    "mergekit_config.yml",
    "sha256sums",
)
"""Files that say how the parent came about, in small letters."""
CODE = ".py"
NOT_FETCHED = (
    *(f"*{ending}" for ending in ENDINGS if "safetensors" not in ending),
    f"*{CODE}",
    ".*",
    "consolidated*",  # The same weights again, in another arrangement.
    # Patterns cannot say "not"; these are all folders but those that begin as TEMPLATES does.
    "[!a]*/*",
    "a[!d]*/*",
)
"""What is not fetched of a model on the hub: what no merge reads or takes along."""
LARGE = 100 * 2**20
"""Bytes beyond which a file is none that a tokenizer or a processor needs."""


def side_files(folder: Path, *, trusted: bool = False) -> tuple[Path, ...]:
    """The files of a model folder that go along with a merge of it, as paths within the folder; code if `trusted`."""
    return tuple(path for path, reason in _judged(folder, trusted) if reason is None)


def left_behind(folder: Path, read: tuple[Path, ...], *, trusted: bool = False) -> tuple[str, ...]:
    """The files of a model folder that do not go along, each with the reason, but for the weights that were `read`."""
    judged = _judged(folder, trusted)
    return tuple(f"{path} ({reason})" for path, reason in judged if reason and folder / path not in read)


def copy_side_files(folder: Path, out: Path, *, trusted: bool = False) -> None:
    """Copy what goes along with a merge of the model in `folder`, to where the merge is written.

    Raises:
        SpecError: a file cannot be read.
    """
    for path in side_files(folder, trusted=trusted):
        try:
            source = (folder / path).open("rb")
        except OSError as error:
            raise SpecError(f"{folder / path} cannot be read ({error.strerror}); copy it anew, or remove it") from None
        (out / path).parent.mkdir(exist_ok=True)
        with source, (out / path).open("wb") as target:
            shutil.copyfileobj(source, target)


def _judged(folder: Path, trusted: bool) -> list[tuple[Path, str | None]]:
    """Every file but the config, and why it stays behind, if it does; folders as a whole, hidden ones left out."""
    templates = folder / TEMPLATES
    try:
        listed = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != CONFIG]
        if templates.is_dir():
            listed.remove(templates)
            listed += [path for path in templates.iterdir() if path.suffix == ".jinja"]
    except OSError as error:
        raise SpecError(f"{error.filename} cannot be listed ({error.strerror}); make it readable") from None
    return [(path.relative_to(folder), _reason(path, trusted)) for path in sorted(listed)]


def _reason(path: Path, trusted: bool) -> str | None:
    if path.is_dir():
        return "a folder"
    if path.name.endswith(ENDINGS):
        return "other weights"
    if path.suffix == CODE and not trusted:
        return "code"
    if path.name.lower() in ABOUT:
        return "describes the parent"
    if not path.is_file():
        return "no file"
    return "large" if path.stat().st_size > LARGE else None
