"""Whether a language model that was trained together with a projector leaves that projector behind."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.findings import Remedy, warning
from neva_recipes.plan.origins.checkpoints import model_differences
from neva_recipes.plan.origins.projector import places_of, share_place
from neva_recipes.plan.origins.sources import Opened

__all__ = ["check_left_projector"]

_LANGUAGE, _PROJECTOR = "model.language.from_pretrained", "model.projector.from_pretrained"


def check_left_projector(recipe: Recipe, opened: Opened) -> Iterator[Found]:
    """Yield a warning if a run has trained the language model and a projector together, and another projector is taken.

    A projector fits that has come from that run, or that was trained beside the language model of that run. A random
    projector is a new beginning, and no mistake.
    """
    projector, language = recipe.model.projector, recipe.model.language
    if projector is None or projector.source is None or language.source is None:
        return
    run = _trained_together(recipe, opened)
    if run is None:
        return
    source, saved = run
    # An export and its run are two names of one place.
    names = 1 if opened.exported_from(source) is None else 2
    theirs = places_of(source, saved, "projector", opened)[:names]
    beside = opened.first_recipe(projector.source)
    ours = [*places_of(projector.source, recipe, "projector", opened)]
    ours += [] if beside is None else places_of(beside.model.language.source, beside, "language", opened)
    if share_place(ours, theirs, opened):
        return
    shape: Remedy = {path: value for path, value, _ in model_differences(saved, recipe, "projector")}
    message = f"the language model was trained in {source} together with its projector, and another projector is taken"
    advice = f"take {_PROJECTOR} from the same stage" if source in opened.coming else ""
    yield found(
        warning("projector-left-behind", message, recipe, _PROJECTOR, _LANGUAGE, advice=advice),
        [{_PROJECTOR: source, **shape}],
    )


def _trained_together(recipe: Recipe, opened: Opened) -> tuple[str, Recipe] | None:
    """Return the last run that has trained the language model, with its recipe, if it has trained a projector too."""
    source, seen = recipe.model.language.source, set[str]()
    while source is not None and source not in seen:
        seen.add(source)  # runs may name each other
        saved = opened.first_recipe(source)
        if saved is None:
            return None
        if saved.model.language.trains:
            projector = saved.model.projector
            return None if projector is None or projector.freeze else (source, saved)
        source = saved.model.language.source
    return None
