"""The cost of a recipe (weights, bytes, operations and seconds), calculated from its sizes and the table of GPUs."""
