"""The effect of a changed field when a run goes on from a checkpoint: it is effective, refused or without effect."""

from neva_recipes.plan.resuming.changes import FieldChange, changed_fields, require_resumable
from neva_recipes.plan.resuming.data import changed_data
from neva_recipes.plan.resuming.effects import EFFECTIVE, REFUSED, UNUSED, Effect, effect_of
from neva_recipes.plan.resuming.going_on import plan_going_on
from neva_recipes.plan.resuming.notes import notes_on, resume_notes

__all__ = [
    "EFFECTIVE",
    "REFUSED",
    "UNUSED",
    "Effect",
    "FieldChange",
    "changed_data",
    "changed_fields",
    "effect_of",
    "notes_on",
    "plan_going_on",
    "require_resumable",
    "resume_notes",
]
