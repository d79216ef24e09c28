"""The commands of `nemo-run`, one module each; only the typed one is loaded."""
