"""Training of LLaVA/NeVA models on Megatron-Core: everything that imports torch."""

from neva_model._core_imports import prepare_imports
from neva_recipes.late_libcst import import_fiddle

import_fiddle()
prepare_imports()
