"""Rules on names."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks._rules import Found, Rule, found
from neva_recipes.plan.findings import error, warning

__all__ = ["LONGEST_NAME", "name_problem", "name_rules"]

LONGEST_NAME = 200
"""Bytes of a run's name; the time is put behind it, and file systems allow 255."""


def name_problem(name: str) -> str | None:
    """Return why a run, and so its directory, cannot be called that; none if it can."""
    if not name.strip():
        return "a run needs a name that is not empty"
    if name[0] in "-.":
        return f"a run's name cannot start with {name[0]!r}"
    if "/" in name or any(not character.isprintable() for character in name):
        return "a run's name cannot hold '/', line breaks or control characters"
    if len(name.encode()) > LONGEST_NAME:
        return f"a run's name cannot be longer than {LONGEST_NAME} bytes"
    return None


def run_name(recipe: Recipe) -> Iterator[Found]:
    """The directory of a run can be called after the recipe."""
    problem = name_problem(recipe.name)
    if problem is not None:
        usable = "".join(c if c.isprintable() and c != "/" else "-" for c in recipe.name.strip()).lstrip("-. ")
        shorter = usable.encode()[:LONGEST_NAME].decode(errors="ignore") or "run"
        yield found(error("name", problem, recipe, "name"), [{"name": shorter}])


def wandb_entity(recipe: Recipe) -> Iterator[Found]:
    """A team of Weights & Biases without a project takes nothing."""
    if recipe.logging.wandb_entity is not None and recipe.logging.wandb_project is None:
        entity, project = "logging.wandb_entity", "logging.wandb_project"
        message = "nothing goes to Weights & Biases without a project"
        yield found(
            warning("wandb-project", message, recipe, entity, project),
            [{project: recipe.name}],
            [{entity: None}],
        )


name_rules: tuple[Rule, ...] = (run_name, wandb_entity)
