"""Turns tokens into text as they are generated, up to the end of the answer."""

from collections.abc import Collection, Sequence

from neva_model.tokenizers import Tokenizer

__all__ = ["TextStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes a growing sequence of tokens into pieces of text that can be printed one after the other.

    Up to the end of the answer, the joined pieces equal the text of all tokens decoded at once. The whole sequence is
    decoded anew for every token, because the text of a token depends on its neighbours (SentencePiece drops the first
    space, several byte tokens make one character), and decoding is cheap compared with the model's step.

    Attributes:
        ended: Whether a stop token or stop string has come; then nothing may be pushed any more.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop_ids: Collection[int] = (),
        stop_strings: Collection[str] = (),
        context: Sequence[int] = (),
    ) -> None:
        """Start a stream.

        Args:
            tokenizer: Decodes the tokens.
            stop_ids: Tokens that end the answer, and are not part of it.
            stop_strings: Texts that end the answer, and are not part of it.
            context: Tokens before the first one, already on the screen; with them the first word keeps the space
                before it.
        """
        self.ended = False
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._stop_strings = tuple(stop_strings)
        self._tokens = list(context)
        self._start = self._printed = len(tokenizer.decode(self._tokens))

    def push(self, token: int) -> str:
        """Add a token and return the text that has become certain; empty within a character of several tokens."""
        assert not self.ended, "the answer has ended"
        if token in self._stop_ids:
            self.ended = True
            return self.finish()
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        ends = [at for stop in self._stop_strings if (at := text.find(stop, self._start)) >= 0]
        if ends:
            self.ended = True
            return self._advance(text[: min(ends)])
        # The text may end in half a character, which decodes to replacement characters, or in half a stop string.
        half_stop = max((len(stop) - 1 for stop in self._stop_strings), default=0)
        return self._advance(text[: max(len(text.rstrip(_REPLACEMENT)) - half_stop, 0)])

    def finish(self) -> str:
        """Return the rest when no more tokens come; incomplete characters become replacement characters."""
        return self._advance(self._tokenizer.decode(self._tokens))

    def _advance(self, text: str) -> str:
        new = text[self._printed :]
        self._printed = max(self._printed, len(text))
        return new
