"""New rows of embedding and output layer, for the tokens that a tokenizer has got (`nemo-run extend-vocab`)."""

from neva_model.checkpoints.extending.extend import Extension, RowInit, extend_vocabulary

__all__ = ["Extension", "RowInit", "extend_vocabulary"]
