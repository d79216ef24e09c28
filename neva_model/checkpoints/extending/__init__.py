"""New rows of embedding and output layer, for the tokens that a tokenizer has got (`nemo-run extend-vocab`)."""
