"""Translates the keys of a NeMo configuration to the fields of a recipe."""

import os
from collections.abc import Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields
from typing import Any, Literal

from neva_recipes.config import (
    CheckpointConfig,
    Draft,
    DraftNode,
    LanguageConfig,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PlainTable,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    RecipeError,
    TrainerConfig,
    VisionConfig,
    check_value,
    config,
    field_types,
    suggest,
)
from neva_recipes.nemo.configuration import MISSING
from neva_recipes.nemo.keys import RULES
from neva_recipes.nemo.rules import NOTHING, Configuration, Outcome, Rule, Unusable, cannot, left, same
from neva_recipes.secrets import mask, secret_values

__all__ = ["GROUPS", "Assumption", "Fate", "Setting", "Translation", "translate"]

GROUPS: dict[str, type] = {
    "model.language": LanguageConfig,
    "model.vision": VisionConfig,
    "model.projector": ProjectorConfig,
    "model": ModelConfig,
    "data": LlavaDataConfig,
    "parallel": ParallelConfig,
    "precision": PrecisionConfig,
    "optim": OptimConfig,
    "trainer": TrainerConfig,
    "checkpoint": CheckpointConfig,
    "logging": LoggingConfig,
}
"""The groups of fields of an imported recipe, inner ones first."""

Kind = Literal["carried", "same", "left", "cannot", "unknown"]

_NEMO_DEFAULT = "(NeMo's default)"
"""Text after a key that is not in the configuration."""

_NO_SECTION = same("a section without keys")


@dataclass(frozen=True)
class Fate:
    """What became of a key.

    Attributes:
        key: Its dotted name.
        value: Its value in the configuration, or NeMo's default if it is absent.
        kind: As in `Outcome`; `unknown` for a key without a rule.
        why: The reason.
        in_file: Whether the key is in the configuration; otherwise the value is NeMo's default.
        is_own: Whether a rule names exactly this key. Values of other keys are not shown.
    """

    key: str
    value: Any
    kind: Kind
    why: str
    in_file: bool = True
    is_own: bool = True

    def line(self) -> str:
        """Return the key with its value and the reason, as one line of printable characters."""
        shown = _printable(f"{self.key}={_shortened(self.value)}" if self.is_own else self.key)
        absent = "" if self.in_file else f" {_NEMO_DEFAULT}"
        return f"{shown}{absent}: {_printable(self.why)}" if self.why else f"{shown}{absent}"


@dataclass(frozen=True)
class Setting:
    """A field of the recipe.

    Attributes:
        value: Its value.
        key: The key it comes from; empty for an assumed value.
        in_file: Whether the key is in the configuration; otherwise the value is NeMo's default.
    """

    value: Any
    key: str
    in_file: bool = True

    def origin(self) -> str:
        """Return the key as comments name it; empty for an assumed value."""
        return self.key if self.in_file else f"{self.key} {_NEMO_DEFAULT}"


@dataclass(frozen=True)
class Assumption:
    """A field that the configuration does not give."""

    path: str
    value: Any
    why: str

    def setting(self) -> str:
        """Return the field with its value."""
        return f"{self.path}={_shortened(self.value)}"


@dataclass(frozen=True)
class Translation:
    """A configuration translated to a recipe.

    Attributes:
        settings: Fields of the recipe by dotted path; other fields have their defaults.
        fates: What became of every key.
        assumptions: Fields that the configuration does not give.
    """

    settings: Mapping[str, Setting]
    fates: tuple[Fate, ...]
    assumptions: tuple[Assumption, ...]

    def of_kind(self, kind: Kind) -> list[Fate]:
        """Return the keys with one kind of outcome, in the order of the file."""
        return [fate for fate in self.fates if fate.kind == kind]

    def nemo_defaults(self) -> list[str]:
        """Return the fields whose value is NeMo's default for an absent key, one line for each key."""
        paths: dict[str, list[str]] = {}
        for path, setting in self.settings.items():
            if not setting.in_file:
                paths.setdefault(setting.key, []).append(f"{path}={_shortened(setting.value)}")
        return [f"{', '.join(fields)}: {key} is not in the configuration" for key, fields in paths.items()]

    def assumption_lines(self) -> list[str]:
        """Return the assumptions, one line for each reason."""
        reasons = dict.fromkeys(assumption.why for assumption in self.assumptions)
        return [
            _printable(f"{', '.join(entry.setting() for entry in self.assumptions if entry.why == why)}: {why}")
            for why in reasons
        ]

    def recipe(self, name: str) -> Draft[Recipe]:
        """Return the recipe with a given name."""
        groups: dict[str, PlainTable] = {group: {} for group in GROUPS}
        for path, setting in self.settings.items():
            group, _, field_name = path.rpartition(".")
            groups[group][field_name] = setting.value
        made: dict[str, DraftNode] = {}
        for group, cls in GROUPS.items():
            inner = {path.rpartition(".")[2]: made[path] for path in made if path.rpartition(".")[0] == group}
            made[group] = config(cls, **groups[group], **inner)
        return config(Recipe, name=name, **{group: made[group] for group in GROUPS if "." not in group})


def translate(values: Mapping[str, object]) -> Translation:
    """Translate a configuration to a recipe.

    Args:
        values: Every value by its dotted key, as `read_configuration` returns them.

    Raises:
        RecipeError: A key that every recipe needs, such as the number of layers, is missing or unusable.
    """
    nemo = Configuration(values)
    settings: dict[str, Setting] = {}
    fates: list[Fate] = []
    assumed: dict[str, Assumption] = {}
    for key, value, rule in _with_rules(values):
        in_file = key in values
        outcome = _decide(rule, key, value, nemo)
        if in_file or outcome.kind != "same":
            is_own = rule is not None and rule.key == key
            fates.append(Fate(key, value, outcome.kind if rule else "unknown", outcome.why, in_file, is_own))
        settings |= {path: Setting(_usable(path, made), key, in_file) for path, made in outcome.fields.items()}
        decisive = "" if in_file or value is None else f"; {key}={_shortened(value)} {_NEMO_DEFAULT}"
        assumed |= {path: Assumption(path, made, f"{why}{decisive}") for path, (made, why) in outcome.assumed.items()}
    assumptions = tuple(assumption for path, assumption in assumed.items() if path not in settings)
    settings |= {assumption.path: Setting(assumption.value, "") for assumption in assumptions}
    _require(settings)
    return Translation(settings, tuple(fates), assumptions)


def _with_rules(values: Mapping[str, object]) -> list[tuple[str, Any, Rule | None]]:
    """Return every key with its value and rule, then the absent keys whose default matters."""
    exact = {rule.key: rule for rule in RULES if not rule.key.endswith("*")}
    starts = sorted((rule for rule in RULES if rule.key.endswith("*")), key=lambda rule: -len(rule.key))
    there = [
        (key, value, exact.get(key) or next((rule for rule in starts if key.startswith(rule.key[:-1])), None))
        for key, value in values.items()
    ]
    absent = [
        (rule.key, rule.absent, rule)
        for rule in exact.values()
        if rule.absent is not NOTHING and rule.key not in values
    ]
    return there + absent


def _decide(rule: Rule | None, key: str, value: object, nemo: Configuration) -> Outcome:
    if rule is None:
        if value in (None, {}) and any(known.key.startswith(f"{key}.") for known in RULES):
            return _NO_SECTION
        known_keys = [known.key for known in RULES if not known.key.endswith("*")]
        return Outcome("left", f"not a key that is known here{suggest(key, known_keys)}")
    if isinstance(value, str) and value == MISSING:
        if rule.required:
            raise RecipeError(f"{key}={MISSING}: has to be given: add {key}=VALUE")
        field = rule.becomes.strip("`")
        if "." in field and " " not in field:
            return cannot(f"has to be given: set {field}")
        return left("has to be given")
    try:
        outcome = rule.decide(value, nemo)
        for path, made in outcome.fields.items():
            _usable(path, made)
    except (Unusable, RecipeError) as error:
        if rule.required:
            raise RecipeError(_printable(f"{key}={_shortened(value)}: {error}")) from None
        return cannot(str(error))
    return outcome


def _usable(path: str, value: object) -> Any:
    """Return a value as the field stores it; raises `RecipeError` if the field does not accept it."""
    group, _, name = path.rpartition(".")
    return check_value(field_types(GROUPS[group])[name], value, path)


def _require(settings: Mapping[str, Setting]) -> None:
    """Raise `RecipeError` for a mandatory field that is not set."""
    for group, cls in GROUPS.items():
        for field in fields(cls):
            path = f"{group}.{field.name}"
            has_default = field.default is not NO_DEFAULT or field.default_factory is not NO_DEFAULT
            if has_default or path in GROUPS or path in settings:
                continue
            key = next((rule.key for rule in RULES if rule.becomes == f"`{path}`"), path)
            raise RecipeError(f"{key} is not there: there is no recipe without it: add {key}=VALUE")


def _shortened(value: object) -> str:
    shown = "null" if value is None else _without_secrets(str(value))
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in _without_secrets(text)
    )


def _without_secrets(text: str) -> str:
    return mask(text, secret_values(os.environ))
