"""Reads a NeMo configuration, YAML with OmegaConf's interpolation, as one flat mapping."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import PlainTable, RecipeError, reading_problem

__all__ = ["MISSING", "read_configuration"]

MISSING = "???"
"""OmegaConf's mark of a mandatory value."""

_GROUPS = ("training", "fine_tuning", "peft")
"""NeMo's launcher puts the file under one of these names, and its interpolations begin with that name."""


def read_configuration(path: Path, overrides: Mapping[str, str] | None = None) -> PlainTable:
    """Return every value of a configuration by its dotted key, with interpolations resolved.

    Lists stay whole, a section without keys is an empty mapping, and a missing mandatory value is `MISSING`.

    Args:
        path: The YAML file.
        overrides: Keys given on NeMo's command line in addition to the file, with the text after `=`.

    Raises:
        RecipeError: The file cannot be read, is not YAML, has no `model.mm_cfg` section, or an interpolation cannot be
            resolved.
    """
    # OmegaConf takes longer to import than a dry run may take; nothing else needs it.
    from omegaconf import OmegaConf

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {reading_problem(error)}") from None
    _register_resolvers()
    plain = _merged(path, text, overrides or {})
    model = plain.get("model")
    if not isinstance(model, dict):
        raise RecipeError(f"{path}: has no model section: expected a NeVA training configuration of NeMo 1.0")
    if not isinstance(model.get("mm_cfg"), dict):
        raise RecipeError(
            f"{path}: has no model.mm_cfg section: expected a NeVA configuration; for a language model without images "
            "start from nemo-run gpt.pretrain"
        )
    tree = OmegaConf.create({**{group: plain for group in _GROUPS if group not in plain}, **plain})
    return {key: value for name in plain for key, value in _values(tree, name, _text(name), path)}


def _merged(path: Path, text: str, overrides: Mapping[str, str]) -> dict[Any, Any]:
    """Return the content of a file with other values for some keys, without resolving interpolations."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        file: Any = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not a YAML configuration: {_one_line(error)}") from None
    if not OmegaConf.is_dict(file):
        return {}
    for key, value in overrides.items():
        try:
            file = OmegaConf.merge(file, OmegaConf.from_dotlist([f"{key.lstrip('+')}={value}"]))
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
            raise RecipeError(f"{key}={value}: cannot be set: {_one_line(error)}") from None
    plain = OmegaConf.to_container(file, resolve=False)
    assert isinstance(plain, dict)
    return plain


def _values(node: Any, name: Any, key: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every entry at and below a node."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

    try:
        value = node[name]
        if isinstance(value, DictConfig) and value:
            for child in value:
                yield from _values(value, child, f"{key}.{_text(child)}", path)
            return
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (MissingMandatoryValue, InterpolationToMissingValueError):
        plain = MISSING
    except RecursionError:
        raise RecipeError(f"{path}: {key}: refers to itself") from None
    except OmegaConfBaseException as error:
        raw = OmegaConf.to_container(node, resolve=False)
        what = raw.get(name) if isinstance(raw, dict) else None
        raise RecipeError(
            f"{path}: {key}={what}: cannot be resolved: {_one_line(error)}; add what it refers to as KEY=VALUE, or set "
            f"{key}=VALUE"
        ) from None
    yield key, plain


def _text(name: object) -> str:
    """Return the name of a key, which YAML may read as a number."""
    return name if isinstance(name, str) else repr(name)


def _one_line(error: Exception) -> str:
    """Return what went wrong, without the lines on the place that OmegaConf and YAML add."""
    import yaml

    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).partition("\n")[0]


def _register_resolvers() -> None:
    """Register the functions that NeMo and its launcher add to OmegaConf's own."""
    from omegaconf import OmegaConf

    functions = {
        "multiply": lambda x, y: x * y,
        "sum": lambda x, y: x + y,
        "divide_ceil": lambda x, y: -(-x // y),
        "divide_floor": lambda x, y: x // y,
    }
    for name, function in functions.items():
        OmegaConf.register_resolver(name, function, replace=True)
