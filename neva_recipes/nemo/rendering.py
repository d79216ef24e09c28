"""Writes a translated configuration as a Python file that is easy to read and to edit."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from neva_recipes import parts
from neva_recipes.config import DraftNode, PlainTable, ProjectorConfig
from neva_recipes.nemo.translation import GROUPS, Fate, Setting, Translation
from neva_recipes.terminal import fold

__all__ = ["IMPORTED_NAMES", "render"]

_WIDTH = 120

_BRANCHES = {"model.language": "language", "model.vision": "vision", "model.projector": "projector"}
"""Groups that have a variable of their own in the file, so that each can be read or replaced by itself."""

IMPORTED_NAMES = ("Draft", "Recipe", "config", "parts", *(cls.__name__ for cls in GROUPS.values()))
"""Names that the file may import, and that its recipe therefore cannot have."""


_ABSENT = object()

_SHAPE = (
    *("vision_model_type", "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"),
    *("num_query_groups", "image_size", "patch_size"),
)
"""Fields by which a published part is recognised."""


def render(translation: Translation, name: str, source: Path, problems: Iterable[str] = ()) -> str:
    """Return the Python file of a recipe.

    Args:
        translation: The translated configuration.
        name: Name of the recipe, a Python identifier.
        source: The configuration, which the file names.
        problems: What keeps the recipe from running, one line each.
    """
    groups: dict[str, dict[str, Setting]] = {group: {} for group in GROUPS}
    for path, setting in translation.settings.items():
        group, _, field = path.rpartition(".")
        groups[group][field] = setting
    body = [line for group, variable in _BRANCHES.items() for line in _branch(group, variable, groups[group])]
    body += _recipe(name, groups)
    mentioned = [cls.__name__ for cls in GROUPS.values() if _mentions(body, cls.__name__)]
    used = sorted({"Draft", "Recipe", "config", *mentioned})
    return "\n".join(
        [
            f'"""{name}: a recipe from a configuration of NeMo."""',
            "",
            *_report(translation, source, problems),
            "",
            *(["from neva_recipes import parts"] if _mentions(body, "parts") else []),
            *_import_line("neva_recipes.config", used),
            "",
            "",
            f"def {name}() -> Draft[Recipe]:",
            f'    """NeVA, as NeMo has it in {_file_name(source)}."""',
            *(line for statement in body for line in _fitted(f"    {statement}")),
            "",
        ]
    )


def _file_name(source: Path) -> str:
    """Return the name of a file in a form that is valid in a docstring."""
    return re.sub(r"[^\w .-]", "_", source.name)


def _report(translation: Translation, source: Path, problems: Iterable[str]) -> Iterator[str]:
    """Yield the comment that lists every key without a line in the code."""
    yield from _comment(f"Written by nemo-run import-nemo from {source.name}. Every key of it is accounted for:", "# ")
    yield from _comment("at the fields it became, or here.", "# ")
    lines: dict[str, Iterable[str]] = {
        "Cannot be carried, and the training means something else without it": _lines(translation.of_kind("cannot")),
        "Keys that are not known": _lines(translation.of_kind("unknown")),
        "Assumed, as the configuration does not say": translation.assumption_lines(),
        "Left out, without consequence for what is trained": _lines(translation.of_kind("left")),
        "What keeps it from running": problems,
    }
    settled = {setting.key for setting in translation.settings.values()}
    elsewhere = [fate for fate in translation.of_kind("carried") if fate.key not in settled]
    lines["Part of what other keys became"] = _lines(elsewhere)
    same = [fate.line().partition(": ")[0] for fate in translation.of_kind("same")]
    lines["Holds here anyway, or changes nothing"] = [", ".join(same)] if same else []
    for title, entries in lines.items():
        comments = [line for entry in entries for line in _comment(entry, "#   ")]
        yield from ("#", f"# {title}:", *comments) if comments else ()


def _lines(fates: Iterable[Fate]) -> list[str]:
    return [fate.line() for fate in fates]


def _comment(text: str, indent: str) -> list[str]:
    printable = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    further = indent if indent == "# " else f"{indent}    "
    width = _WIDTH - 4  # lines in the function are indented
    return fold(printable, width, indent, further)


def _branch(group: str, variable: str, settings: dict[str, Setting]) -> Iterator[str]:
    """Yield the statements that make a part of the model, from a published part if one matches."""
    call, given = _published(group, settings)
    if not call:
        yield from _call(f"{variable} = config(", GROUPS[group].__name__, _arguments(group, settings), ")")
        return
    defaults = {field: Setting(getattr(GROUPS[group], field, None), "") for field in given}
    settings = _in_order(group, defaults | settings)
    settled = {field: setting for field, setting in settings.items() if given.get(field, _ABSENT) == setting.value}
    keys = dict.fromkeys(setting.origin() for setting in settled.values() if setting.key)
    if keys:
        yield from _comment(", ".join(keys), "# ")
    yield f"{variable} = {call}"
    for field, setting in settings.items():
        if field not in settled:
            origin = "" if setting is defaults.get(field) else _origin(setting)
            yield f"{variable}.{field} = {_literal(setting.value)}{origin}"


def _published(group: str, settings: dict[str, Setting]) -> tuple[str, PlainTable]:
    """Return the call that makes the published part of these sizes, and its fields; empty if there is none."""
    values = {field: setting.value for field, setting in settings.items()}
    if group == "model.projector":
        kind = values.get("mm_projector_type", ProjectorConfig.mm_projector_type)
        return f"parts.projector({_literal(kind)})", {"mm_projector_type": kind}
    parts_of_this_kind: dict[str, DraftNode]
    if group == "model.language":
        parts_of_this_kind = {'parts.llama("7b")': parts.llama("7b"), 'parts.llama("13b")': parts.llama("13b")}
    else:
        sides: tuple[Literal[224, 336], ...] = (224, 336)
        parts_of_this_kind = {f"parts.clip_vit_large({side})": parts.clip_vit_large(side) for side in sides}
    for call, part in parts_of_this_kind.items():
        if all(values.get(field) == part.__arguments__[field] for field in _SHAPE if field in part.__arguments__):
            return call, part.__arguments__
    return "", {}


def _recipe(name: str, groups: dict[str, dict[str, Setting]]) -> Iterator[str]:
    yield "return config("
    yield "    Recipe,"
    yield f'    name="{name}",'
    for group, cls in GROUPS.items():
        if group in _BRANCHES:
            continue
        arguments = _arguments(group, groups[group])
        if group == "model":
            arguments = [(f"{variable}={variable}", "") for variable in _BRANCHES.values()] + arguments
        yield from (f"    {line}" for line in _call(f"{group}=config(", cls.__name__, arguments, "),"))
    yield ")"


def _arguments(group: str, settings: dict[str, Setting]) -> list[tuple[str, str]]:
    ordered = _in_order(group, settings)
    return [(f"{field}={_literal(setting.value)}", _origin(setting)) for field, setting in ordered.items()]


def _call(start: str, first: str, arguments: list[tuple[str, str]], end: str) -> Iterator[str]:
    """Yield a call, on one line if it has no more than the first argument."""
    if not arguments:
        yield f"{start}{first}{end}"
        return
    yield start
    yield f"    {first},"
    yield from (f"    {argument},{origin}" for argument, origin in arguments)
    yield end


def _origin(setting: Setting) -> str:
    return f"  # {setting.origin() or 'assumed'}"


def _fitted(line: str) -> list[str]:
    """Return a line, or two if the comment with its key makes it too long."""
    code, separator, key = line.rpartition("  # ")
    if len(line) <= _WIDTH or not separator:
        return [line]
    return [f"{code[: len(code) - len(code.lstrip())]}# {key}", code]


def _in_order(group: str, settings: dict[str, Setting]) -> dict[str, Setting]:
    """Return settings in the order of the fields of their group."""
    order = list(GROUPS[group].__dataclass_fields__)  # type: ignore[attr-defined]
    return dict(sorted(settings.items(), key=lambda item: order.index(item[0])))


def _import_line(module: str, names: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def _mentions(body: Iterable[str], name: str) -> bool:
    return any(f"({name}" in line or line.strip() == f"{name}," or f" {name}." in line for line in body)


def _literal(value: object) -> str:
    """Return a value as Python code, with strings in double quotes if that needs no escapes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and '"' not in value else repr(value)
