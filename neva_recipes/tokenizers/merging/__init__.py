"""Two tokenizers made one: the tokens of the base stay, those of the other stand behind them."""

from neva_recipes.tokenizers.merging._union import Union
from neva_recipes.tokenizers.merging.merge import ChangedLine, Merger, OldText, merge

__all__ = ["ChangedLine", "Merger", "OldText", "Union", "merge"]
