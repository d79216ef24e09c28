"""Conversations and the templates that turn them into prompts: text and rules, no tokens yet. Never imports torch."""
