"""Turning tokens into text while they come."""

from collections.abc import Sequence

from neva_model.tokenizers import Tokenizer

__all__ = ["TextStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes a growing sequence of tokens into pieces of text that can be printed one after the other.

    The pieces joined are what decoding all tokens at once gives. The whole sequence is decoded anew for every token:
    what a token adds depends on its neighbours (SentencePiece drops the first space, several byte tokens make one
    character), and decoding costs next to nothing beside the model's step.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        """Start a stream.

        Args:
            tokenizer: Decodes the tokens.
            context: Tokens that stand before the first one and are already on the screen; with them a first word
                keeps the space before it.
        """
        self._tokenizer = tokenizer
        self._tokens = list(context)
        self._printed = len(tokenizer.decode(self._tokens))

    def push(self, token: int) -> str:
        """Add a token and return the text that has become certain; empty inside a character of several tokens."""
        self._tokens.append(token)
        # Bytes that are no character yet are decoded to replacement characters at the end of the text.
        return self._advance(self._tokenizer.decode(self._tokens).rstrip(_REPLACEMENT))

    def finish(self) -> str:
        """Return what is left: replacement characters where the last bytes never became a character."""
        return self._advance(self._tokenizer.decode(self._tokens))

    def _advance(self, text: str) -> str:
        new = text[self._printed :]
        self._printed = max(self._printed, len(text))
        return new
