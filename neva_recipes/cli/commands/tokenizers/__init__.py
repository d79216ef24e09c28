"""The actions of `nemo-run tokenizer`."""
