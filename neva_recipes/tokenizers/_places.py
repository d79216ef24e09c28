"""Where a tokenizer lies: a file, a directory, or a hub name; and which files of a directory go with it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from neva_recipes.config import DataError, PlainTable, expand_path, path_is, pointer_in_place
from neva_recipes.prompts.tokens.whole_tokens import NAMED_TOKENS, token_text

__all__ = [
    "CONFIG_FILE",
    "JSON_FILE",
    "MODEL_FILE",
    "TEMPLATES",
    "carried_files",
    "declaring_configuration",
    "find_tokenizer",
    "named_tokens",
    "outside_tokens",
    "settings_of",
    "template_files",
    "token_flags",
]

MODEL_FILE, JSON_FILE, CONFIG_FILE = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"

TEMPLATES = "additional_chat_templates"
"""The folder of a directory with a file for each further chat template, such as that for calls of tools."""

_ADDED = "added_tokens.json"

_DECODER = "added_tokens_decoder"

_SPECIAL = "special_tokens_map.json"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

_CARRIED = (CONFIG_FILE, _ADDED, _SPECIAL, "chat_template.jinja", "chat_template.json")
"""Files that go with a tokenizer whatever its vocabulary."""


def find_tokenizer(name: str) -> Path:
    """Return the file or directory of a tokenizer; one that a hub name means is fetched, without its weights.

    Raises:
        DataError: There is none, or the name is that of one file of several.
    """
    path = expand_path(name)
    if path_is(path):
        from neva_recipes.plan.tokenizers.sentencepiece_models import require_model_file  # the plan takes 0.2 s

        require_model_file(path)
        return path
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise DataError(
            f"tokenizer {name} does not exist: expected a directory, a .model file, or a hub name, owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[MODEL_FILE, JSON_FILE, *_CARRIED, f"{TEMPLATES}/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"tokenizer {name}: is no path here, and cannot be fetched from the hub: {reason}") from None


def carried_files(folder: Path) -> dict[str, Path]:
    """Return the files of a directory that go with its tokenizer, by their paths in it.

    They are configuration, special tokens and chat templates.
    """
    return {name: folder / name for name in _CARRIED if (folder / name).is_file()} | template_files(folder)


def template_files(folder: Path) -> dict[str, Path]:
    """Return the files of the further chat templates of a directory, by their paths in it."""
    files = sorted(path for path in (folder / TEMPLATES).glob("*.jinja") if path.is_file())
    return {f"{TEMPLATES}/{path.name}": path for path in files}


def outside_tokens(folder: Path) -> dict[str, int]:
    """Return the tokens that the configuration of a directory adds to its vocabulary, with their ids.

    Raises:
        DataError: A file of the configuration cannot be read.
    """
    found: dict[str, int] = {}
    for name, entries in ((_ADDED, _of_list), (CONFIG_FILE, _of_configuration)):
        if (folder / name).is_file():
            found |= dict(entries(folder / name))
    return found


def named_tokens(folder: Path) -> list[str]:
    """Return the tokens that the configuration of a directory names, whether or not it gives them ids.

    transformers adds those that are in no vocabulary behind it, in this order.

    Raises:
        DataError: A file of the configuration cannot be read.
    """
    settings = settings_of(folder)
    others = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    keys = [*NAMED_TOKENS, *(key for key in settings if key.endswith("_token") and key not in NAMED_TOKENS)]
    entries = [settings.get(key) for key in keys]
    entries += list(others.values()) if isinstance(others, dict) else others if isinstance(others, list) else []
    return list(dict.fromkeys(token for entry in entries if (token := token_text(entry))))


def settings_of(folder: Path) -> PlainTable:
    """Return the configuration of the tokenizer of a directory: tokenizer_config.json over special_tokens_map.json.

    Raises:
        DataError: A file cannot be read.
    """
    settings: PlainTable = {}
    for name in (_SPECIAL, CONFIG_FILE):
        if (folder / name).is_file():
            settings |= _read(folder / name)
    return settings


def token_flags(folder: Path) -> dict[str, dict[str, bool]]:
    """Return how transformers finds each token that the configuration of a directory adds or names.

    Raises:
        DataError: A file of the configuration cannot be read.
    """
    flags = {token: {"normalized": False, "special": True} for token in named_tokens(folder)}
    numbers = outside_tokens(folder)
    path = folder / CONFIG_FILE
    entries = _declared(path, _read(path)).values() if path.is_file() else ()
    declared = {entry["content"]: {flag: bool(entry.get(flag)) for flag in _FLAGS} for entry in entries}
    ordered = sorted(numbers, key=numbers.__getitem__)
    return {token: declared.get(token, {"normalized": False, "special": False}) for token in ordered} | {
        token: flag for token, flag in flags.items() if token not in numbers
    }


def declaring_configuration(path: Path, tokens: Mapping[str, int], *, special: bool) -> bytes:
    """Return a tokenizer_config.json that declares further tokens.

    transformers asks the SentencePiece model for such tokens only if the configuration lists no special tokens.

    Args:
        path: The configuration so far.
        tokens: Id of every token.
        special: Whether they are special tokens.

    Raises:
        DataError: The configuration cannot be read.
    """
    configuration = _read(path)
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False) | {"special": special}
    entries = {str(number): {"content": token, **flags} for token, number in tokens.items()}
    configuration[_DECODER] = _declared(path, configuration) | entries
    return (json.dumps(configuration, indent=2) + "\n").encode()


def _declared(path: Path, configuration: PlainTable) -> PlainTable:
    found = configuration.get(_DECODER) or {}
    if not isinstance(found, dict):
        raise DataError(f"{path}: {_DECODER} is not a JSON object")
    return found


def _of_list(path: Path) -> Iterator[tuple[str, int]]:
    for token, number in _read(path).items():
        yield token, _whole(path, token, number)


def _of_configuration(path: Path) -> Iterator[tuple[str, int]]:
    for number, entry in _declared(path, _read(path)).items():
        token = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(token, str):
            raise DataError(f"{path}: {_DECODER}: {number} has no content that is a string")
        yield token, _whole(path, token, number)


def _whole(path: Path, token: str, number: object) -> int:
    if not re.fullmatch(r"\d{1,9}", str(number), re.ASCII):
        raise DataError(f"{path}: the id of {token} is {number}, expected a whole number")
    return int(str(number))


def _read(path: Path) -> PlainTable:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: {pointer_in_place(path) or f'cannot be read: {reason}'}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: is not a JSON object")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"{path}: holds half a surrogate pair, which is no character") from None
    return found
