"""Checks of the files of a recipe before anything starts: samples, lengths, tokenizers, questions."""
