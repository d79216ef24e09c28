"""Texts and the tokens of a vocabulary: which a text keeps whole, how the rest is spelt, which need a row."""
