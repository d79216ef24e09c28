"""What `nemo-run inspect` shows of what is on the disk: a model of Hugging Face, a checkpoint or a tokenizer."""

from neva_recipes.inspection.stored.checkpoint import read_checkpoint
from neva_recipes.inspection.stored.huggingface import read_huggingface
from neva_recipes.inspection.stored.stored_model import StoredModel, StoredPart, StoredTensor, Use
from neva_recipes.inspection.stored.text import stored_lines
from neva_recipes.inspection.stored.tokenizer import holds_only_tokenizer, read_stored_tokenizer

__all__ = [
    "StoredModel",
    "StoredPart",
    "StoredTensor",
    "Use",
    "holds_only_tokenizer",
    "read_checkpoint",
    "read_huggingface",
    "read_stored_tokenizer",
    "stored_lines",
]
