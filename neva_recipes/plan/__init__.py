"""What a recipe costs and whether it can run, by plain arithmetic: never imports torch."""

from neva_recipes.plan.checks import check_recipe, require_valid
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.fit import Candidate, fit
from neva_recipes.plan.layout import Coordinates, Layout, Stage, layout_of
from neva_recipes.plan.plan import Plan, Planner, plan

__all__ = [
    "Candidate",
    "Coordinates",
    "Finding",
    "Layout",
    "Plan",
    "Planner",
    "Stage",
    "check_recipe",
    "fit",
    "layout_of",
    "plan",
    "require_valid",
]
