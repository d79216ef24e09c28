"""Recipes: typed, declarative descriptions of what to train. Importing this package never imports torch."""
