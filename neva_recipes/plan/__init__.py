"""What a recipe costs and whether it can run, by plain arithmetic. This package never imports torch."""

from neva_recipes.plan.checks import check_recipe, require_valid
from neva_recipes.plan.cost.layout import Coordinates, Layout, layout_of
from neva_recipes.plan.cost.sizes import Stage
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.fitting.fit import Candidate, fit
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
