"""What `nemo-run inspect` shows of a model on the disk: a Hugging Face directory or a checkpoint of a run."""

from neva_recipes.inspection.stored.checkpoint import read_checkpoint
from neva_recipes.inspection.stored.huggingface import read_huggingface
from neva_recipes.inspection.stored.stored_model import StoredModel, StoredPart, StoredTensor, Use
from neva_recipes.inspection.stored.text import stored_lines

__all__ = [
    "StoredModel",
    "StoredPart",
    "StoredTensor",
    "Use",
    "read_checkpoint",
    "read_huggingface",
    "stored_lines",
]
