"""Tokenizers read without their libraries, as far as a plan needs them."""
