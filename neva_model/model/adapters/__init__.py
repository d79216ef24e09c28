"""Low-rank adapters (LoRA, rsLoRA, DoRA) beside linear layers, and fixed weights in 4 bits."""

from neva_model.model.adapters.adapter import Adapter
from neva_model.model.adapters.adapters import Adapters, adapt_language, adapt_tower, kept_shards
from neva_model.model.adapters.quantized import QuantizedWeight, quantize_language

__all__ = [
    "Adapter",
    "Adapters",
    "QuantizedWeight",
    "adapt_language",
    "adapt_tower",
    "kept_shards",
    "quantize_language",
]
