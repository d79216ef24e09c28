"""Whether a trained projector gets the vision tower and the language model that it was trained with."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, PlainTable, Recipe, expand_path, format_value, path_is
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.findings import Finding, field_value, warning
from neva_recipes.plan.huggingface import compare_part, is_huggingface
from neva_recipes.plan.origins.checkpoints import find_run_directory, model_differences
from neva_recipes.plan.origins.other_size import other_size
from neva_recipes.plan.origins.sources import Opened

__all__ = ["check_projector", "places_of", "share_place"]

_NEIGHBOURS = {"vision": "vision tower", "language": "language model"}


@dataclass(frozen=True)
class _Origin:
    """Where the weights of a part come from.

    Attributes:
        places: Runs and directories that the weights have come through, nearest first.
        drawn_by: The recipe that drew them at random; `None` if something has trained them since.
    """

    places: tuple[str, ...]
    drawn_by: Recipe | None = None


def check_projector(recipe: Recipe, opened: Opened) -> Iterator[Found]:
    """Yield a warning for each neighbour of a trained projector that is not the one it was trained with.

    A neighbour fits if it comes from the same run or directory, even if it has been trained since, or if it is random,
    untrained and drawn alike. One that was trained together with the projector must have come through their run. An
    export names the run that it was made from. If the source of the projector does not tell its neighbours, only random
    neighbours get a warning.
    """
    projector = recipe.model.projector
    if projector is None or projector.source is None:
        return
    trained = opened.first_recipe(projector.source)
    for part in _NEIGHBOURS:
        if getattr(recipe.model, part) is None:
            continue
        if trained is None:
            yield from _beside_published(recipe, part, projector.source, opened)
        elif trained.model.projector is not None and getattr(trained.model, part) is not None:
            yield from _beside(recipe, part, projector.source, trained, opened)


def _beside(recipe: Recipe, part: str, source: str, trained: Recipe, opened: Opened) -> Iterator[Found]:
    """Yield a warning if a part differs from that of the projector's run, whose recipe is `trained`."""
    here, there = getattr(recipe.model, part), getattr(trained.model, part)
    ours, theirs = _origin(here.source, recipe, part, opened), _origin(source, trained, part, opened)
    are_trained_together = there.trains and trained.model.projector is not None and not trained.model.projector.freeze
    # What the run took this part from is another one than the projector has come to know.
    fitting = theirs.places[: len(_names_of(source, opened))] if are_trained_together else theirs.places
    if share_place(ours.places, fitting, opened):
        return
    field, name = f"model.{part}.from_pretrained", _NEIGHBOURS[part]
    shape = {path: value for path, value, _ in model_differences(trained, recipe, part)}
    size = other_size(recipe, shape)
    if ours.drawn_by is None and theirs.drawn_by is not None:
        # Don't advise to replace trained weights by random ones.
        what = f"the random {name} of its run"
        advice = _in_size(size, field, source, opened) if size else _repeated(recipe, part, source, trained, opened)
        yield found(_warning(recipe, what, field, advice=advice))
        return
    sources, differences = [source], dict[str, Any]()
    if ours.drawn_by is not None and theirs.drawn_by is not None:
        differences = _drawn_otherwise(theirs.drawn_by, ours.drawn_by, part)
        if not differences:
            return
        told = ", ".join(f"{path}={format_value(value)}" for path, value in differences.items())
        what = f"another random {name} ({told})"
    elif there.trains:
        what = f"the {name} that its run has trained"
    else:
        what = f"the {name} of {there.source}"
        sources.insert(0, there.source)
    if size:
        yield found(_warning(recipe, what, field, *differences, advice=_in_size(size, field, sources[0], opened)))
        return
    # The path of a future run cannot be named yet.
    advice = f"take {field} from the same stage" if source in opened.coming else ""
    yield found(
        _warning(recipe, what, field, *differences, advice=advice), [{field: each, **shape} for each in sources]
    )


def _names_of(source: str, opened: Opened) -> list[str]:
    """Return the places of a source itself: one, or both its own and that of its run if it is an export."""
    exported = opened.exported_from(source)
    return [_place(source), *([] if exported is None else [_place(exported)])]


def _in_size(size: str, field: str, source: str, opened: Opened) -> str:
    """Return the advice to take another size, with the part that the projector was trained beside."""
    own = f"{field} from the same stage" if source in opened.coming else f"{field}={shlex.quote(source)}"
    return f"{size}, with {own}"


def _repeated(recipe: Recipe, part: str, source: str, trained: Recipe, opened: Opened) -> str:
    """Return how to train the projector with the part that the recipe has."""
    field = f"model.{part}.from_pretrained"
    if source in opened.coming:
        return f"give its stage the same {field}"
    path = expand_path(opened.exported_from(source) or source)
    run = find_run_directory(path)
    shape = {path: value for path, value, _ in model_differences(recipe, trained, part)}
    settings = {field: getattr(recipe.model, part).source, **shape}
    words = [source if run == expand_path(source) else str(run or source)]
    words += [f"{path}={format_value(value)}" for path, value in settings.items()]
    return f"nemo-run rerun {shlex.join(words)} trains it beside this one"


def _beside_published(recipe: Recipe, part: str, source: str, opened: Opened) -> Iterator[Found]:
    """Yield a warning if a part is random, but the projector comes from a Hugging Face directory."""
    path = expand_path(source)
    if getattr(recipe.model, part).source is not None or not path_is(path, Path.is_dir) or not is_huggingface(path):
        return
    try:
        has_part = not list(compare_part(opened.directory(path), recipe.model, part))
    except CheckpointError:
        return  # `check_sources` reports it
    field = f"model.{part}.from_pretrained"
    advice = "" if has_part else f"set {field} to what it was trained beside"
    what = f"another {_NEIGHBOURS[part]} than a random one"
    yield found(_warning(recipe, what, field, advice=advice), [{field: source}] if has_part else [])


def _warning(recipe: Recipe, what: str, *fields: str, advice: str) -> Finding:
    message = f"the projector was trained beside {what}"
    return warning("projector-mismatch", message, recipe, "model.projector.from_pretrained", *fields, advice=advice)


def places_of(source: str | None, recipe: Recipe, part: str, opened: Opened) -> tuple[str, ...]:
    """Return the runs and directories that a part of a recipe has come through, nearest first.

    Args:
        source: The run, checkpoint or directory that holds the part; `None` if the recipe draws it at random.
        recipe: The recipe.
        part: `language`, `vision` or `projector`.
        opened: The runs and directories read so far.
    """
    return _origin(source, recipe, part, opened).places


def share_place(ours: Iterable[str], theirs: Iterable[str], opened: Opened) -> bool:
    """Return whether two parts may have come through the same run or directory, by the results of `places_of`."""
    others = tuple(theirs)
    return any(_same_place(one, other, opened) for one in ours for other in others)


def _origin(source: str | None, recipe: Recipe, part: str, opened: Opened) -> _Origin:
    """Return where a part comes from.

    Args:
        source: The run, checkpoint or directory that holds it; `None` if the recipe draws it at random.
        recipe: The recipe.
        part: `vision`, `language` or `projector`.
        opened: The runs and directories read so far.
    """
    places: list[str] = []
    is_trained = False
    while source is not None:
        place = _place(source)
        if place in places:  # runs that name each other
            return _Origin(tuple(places))
        places.append(place)
        if (exported := opened.exported_from(source)) is not None:
            places.append(_place(exported))
        saved = opened.first_recipe(source)
        config = None if saved is None else getattr(saved.model, part)
        if saved is None or config is None:
            return _Origin(tuple(places))
        is_trained = is_trained or config.trains
        source, recipe = config.source, saved
    return _Origin(tuple(places), None if is_trained else recipe)


def _place(source: str) -> str:
    """Return one name for all names of the same local run or directory; other names stay as they are."""
    path = expand_path(source)
    folder = find_run_directory(path) or path
    return str(folder.resolve()) if path_is(folder) else source


def _same_place(one: str, other: str, opened: Opened) -> bool:
    """Return whether two places may be the same; one that is not here may be a copy of one with its name."""
    are_here = all(path_is(Path(place)) or place in opened.coming for place in (one, other))
    return one == other or (not are_here and Path(one).name == Path(other).name)


def _drawn_otherwise(there: Recipe, here: Recipe, part: str) -> PlainTable:
    """Return the fields by which two recipes draw different weights for a part, with their values in the first recipe.

    Weights are a function of the seed, the shape and the device (`neva_model.model.initialization`).
    """
    differences = {path: value for path, value, _ in model_differences(there, here, part)}
    fields = ["trainer.seed"]
    fields += ["model.language.init_method_std"] if part == "language" else []
    # The device that `auto` chose is unknown.
    fields += ["trainer.accelerator"] if "auto" not in (there.trainer.accelerator, here.trainer.accelerator) else []
    drawn = {path: (field_value(there, path), field_value(here, path)) for path in fields}
    return {path: value for path, (value, other) in drawn.items() if value != other} | differences
