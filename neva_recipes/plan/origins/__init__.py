"""The sources of the parts of a model (runs, checkpoints, Hugging Face directories), and whether they fit."""
