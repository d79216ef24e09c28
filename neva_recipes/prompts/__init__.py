"""Data files, conversations and the templates that make prompts of them. This package never imports torch."""
