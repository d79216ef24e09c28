"""NeMo 1.0 NeVA configurations, read as recipes.

`read_configuration` reads the YAML, `translate` decides what each key becomes, and `render` writes the recipe as a
Python file.
"""

from neva_recipes.nemo.configuration import read_configuration
from neva_recipes.nemo.keys import RULES
from neva_recipes.nemo.rendering import render
from neva_recipes.nemo.translation import Assumption, Setting, Translation, translate

__all__ = ["RULES", "Assumption", "Setting", "Translation", "read_configuration", "render", "translate"]
