"""The plan of a run that goes on from a checkpoint, without findings on the beginning that lies behind it."""

import dataclasses

from neva_recipes.config import Recipe
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.origins.checkpoints import PARTS
from neva_recipes.plan.plan import Plan

__all__ = ["plan_going_on"]

_STILL_TRUE = frozenset({"random-and-frozen"})
"""Rules on sources that also hold for a checkpoint, since it keeps the weights that nothing has trained."""


_OF_WHOLE_RUNS = frozenset({"time-limit", "runs-dir-unshared"})
"""Rules on the time of all steps, of which some are done, and on the folder of a run, which is there."""


def plan_going_on(plan: Plan) -> Plan:
    """Return a plan without its findings on sources of weights, which the checkpoint holds, and on the whole run.

    Args:
        plan: The plan of the recipe as if it started from the beginning.
    """
    unread = _unread_sources(plan.recipe)
    found = [each for each in plan.findings if each.code not in _OF_WHOLE_RUNS]
    kept = [each for each in found if each.code in _STILL_TRUE or unread.isdisjoint(each.fields)]
    return dataclasses.replace(plan, findings=tuple(map(_about_tokenizer, kept)))


def _unread_sources(recipe: Recipe) -> frozenset[str]:
    """Return the fields whose files a run with a checkpoint does not read again: those of its initial weights."""
    parts = [part for part in PARTS if part != "language" or recipe.data.tokenizer is not None]
    adapters = [f"model.{part}.lora.from_pretrained" for part in ("language", "vision")]
    return frozenset([*(f"model.{part}.from_pretrained" for part in parts), *adapters])


def _about_tokenizer(finding: Finding) -> Finding:
    """Return a finding; if the source of the language model is missing, it tells what is still read there."""
    if finding.code != "file-missing" or "model.language.from_pretrained" not in finding.fields:
        return finding
    setting = "set data.tokenizer=PATH"
    return dataclasses.replace(
        finding,
        message=f"{finding.message}, and the run reads its tokenizer there",
        advice=f"{finding.advice}, or {setting}" if finding.advice else setting,
    )
