"""Data files, conversations and the templates that make prompts of them. Never imports torch."""
