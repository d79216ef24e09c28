"""What `--dry-run` shows of a recipe: its values and their sources, its plan, and what would be started.

The page is in `neva_recipes.inspection.page`, since only it needs an HTML library.
"""

from neva_recipes.inspection.inspection import Inspection, inspect_recipe
from neva_recipes.inspection.json_text import inspection_to_json, recipe_from_json
from neva_recipes.inspection.python_code import recipe_to_python
from neva_recipes.inspection.sources import Source, source_of
from neva_recipes.inspection.text import inspection_to_text, recipe_to_text

__all__ = [
    "Inspection",
    "Source",
    "inspect_recipe",
    "inspection_to_json",
    "inspection_to_text",
    "recipe_from_json",
    "recipe_to_python",
    "recipe_to_text",
    "source_of",
]
