"""Tools that make tokenizers (train one, merge two, add tokens) and measure them."""

from neva_recipes.prompts.tokens.whole_tokens import EXTRA_TOKENS
from neva_recipes.tokenizers._places import TEMPLATES, find_tokenizer, template_files
from neva_recipes.tokenizers._scripts import UNSPACED
from neva_recipes.tokenizers._texts import TEXT_KEYS
from neva_recipes.tokenizers.adding import Addition, add_tokens
from neva_recipes.tokenizers.checking import ChangedText, Check, check
from neva_recipes.tokenizers.comparing import Comparison, Cost, ScriptCosts, compare
from neva_recipes.tokenizers.merging import ChangedLine, Merger, OldText, Union, merge
from neva_recipes.tokenizers.training import Kind, train

__all__ = [
    "EXTRA_TOKENS",
    "TEMPLATES",
    "TEXT_KEYS",
    "UNSPACED",
    "Addition",
    "ChangedLine",
    "ChangedText",
    "Check",
    "Comparison",
    "Cost",
    "Kind",
    "Merger",
    "OldText",
    "ScriptCosts",
    "Union",
    "add_tokens",
    "check",
    "compare",
    "find_tokenizer",
    "merge",
    "template_files",
    "train",
]
