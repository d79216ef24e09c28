"""Tools for data files of conversations: what is wrong with them, and what a model sees of them."""
