"""Low-rank adapters (LoRA, rsLoRA, DoRA) beside the linear layers of the language model and the vision tower."""

from neva_model.model.adapters.adapter import Adapter
from neva_model.model.adapters.adapters import Adapters, adapt_language, adapt_tower, kept_shards

__all__ = ["Adapter", "Adapters", "adapt_language", "adapt_tower", "kept_shards"]
