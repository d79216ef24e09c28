"""Rules on names."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks._rules import Found, Rule, found
from neva_recipes.plan.findings import error, warning
from neva_recipes.run_directory.names import LONGEST_NAME, name_problem

__all__ = ["name_rules"]


def run_name(recipe: Recipe) -> Iterator[Found]:
    """The name of the recipe is valid as the name of the run's directory."""
    problem = name_problem(recipe.name)
    if problem is not None:
        usable = "".join(c if c.isprintable() and c != "/" else "-" for c in recipe.name.strip()).lstrip("-. ")
        shorter = usable.encode()[:LONGEST_NAME].decode(errors="ignore") or "run"
        yield found(error("name", problem, recipe, "name"), [{"name": shorter}])


def wandb_entity(recipe: Recipe) -> Iterator[Found]:
    """A Weights & Biases entity needs a project."""
    if recipe.logging.wandb_entity is not None and recipe.logging.wandb_project is None:
        entity, project = "logging.wandb_entity", "logging.wandb_project"
        message = "nothing goes to Weights & Biases without a project"
        yield found(
            warning("wandb-project", message, recipe, entity, project),
            [{project: recipe.name}],
            [{entity: None}],
        )


name_rules: tuple[Rule, ...] = (run_name, wandb_entity)
