"""Localizing a language model: what its pipeline reports. The pipeline itself is `neva_recipes.gpt.localize`."""
