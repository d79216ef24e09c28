"""A conversation with a model, answer by answer, without input and output."""

from collections.abc import Iterator
from pathlib import Path

import torch

from neva_model.data.encoding import Prompt, encode_prompt
from neva_model.data.images.reading import read_image
from neva_model.inference.generate import generate, image_features_of, sequence_limit
from neva_model.inference.opening import OpenModel
from neva_model.inference.options import Sampling
from neva_model.inference.text_stream import TextStream
from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import Turn
from neva_recipes.prompts.templates import Template

__all__ = ["Session"]


class Session:
    """A conversation about at most one image, or independent continuations of texts.

    For every answer the whole conversation is encoded anew, as in training; text that the model wrote may be split into
    other tokens than the model generated. Only the features of the image are kept.

    Attributes:
        notice: Why the last answer was cut off; `None` if it was completed.
    """

    def __init__(self, opened: OpenModel, sampling: Sampling) -> None:
        """Begin without an image.

        Args:
            opened: The model.
            sampling: How its answers are chosen.
        """
        self.notice: str | None = None
        self._opened = opened
        self._sampling = sampling
        self._turns: list[Turn] = []
        self._features: torch.Tensor | None = None

    def show_image(self, path: str | Path) -> None:
        """Begin a new conversation about an image.

        Raises:
            DataError: The file is not a usable image, or the model is text-only.
        """
        if self._opened.image_processor is None:
            raise DataError(f"{self._opened.source} is a text-only model: it cannot look at {path}")
        pixels = self._opened.image_processor(read_image(path))
        self._features = image_features_of(self._opened.model, pixels[None])
        self._turns = []

    def reset(self) -> None:
        """Begin a new conversation without an image."""
        self._features = None
        self._turns = []

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer to the next question, piece by piece.

        The exchange becomes part of the conversation when the answer has ended, for whatever reason.

        Raises:
            DataError: The conversation is too long, or does not fit the template.
        """
        template = self._opened.template
        if template is None:
            yield from self._continue(question)
            return
        if template.question is None:
            # The template allows only one exchange, so each question starts a new conversation about the same image.
            self._turns = []
        asked = Turn("human", question, image=self._features is not None and not self._turns)
        prompt = self._encode([*self._turns, asked], template)
        stream = TextStream(self._opened.tokenizer, stop_ids=prompt.stop_ids, stop_strings=prompt.stop_strings)
        answer = ""
        for piece in self._generate(prompt, stream):
            # In some templates the model writes the space before an answer, in others the template does.
            shown = piece if answer else piece.lstrip()
            answer += shown
            if shown:
                yield shown
        self._turns += [asked, Turn("gpt", answer.rstrip())]

    def _encode(self, turns: list[Turn], template: Template) -> Prompt:
        opened = self._opened
        return encode_prompt(turns, template, opened.tokenizer, tokens_per_image=opened.tokens_per_image)

    def _continue(self, text: str) -> Iterator[str]:
        tokenizer = self._opened.tokenizer
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        tokens = [*begin, *tokenizer.encode_text(text, prefix=True)]
        if not tokens:
            raise DataError("there is no text to continue, and the tokenizer has no token to begin one with")
        stop_ids = frozenset([] if tokenizer.eos_id is None else [tokenizer.eos_id])
        stream = TextStream(tokenizer, stop_ids=stop_ids, context=tokens)
        for piece in self._generate(Prompt(tokens, stop_ids, ()), stream):
            if piece:
                yield piece

    def _generate(self, prompt: Prompt, stream: TextStream) -> Iterator[str]:
        sampling = self._sampling
        self.notice = None
        made = 0
        steps = generate(
            self._opened.model,
            torch.tensor([prompt.tokens]),
            image_features=self._features,
            sampling=sampling,
            stop_token_ids=prompt.stop_ids,
        )
        for (token,) in steps:
            assert token is not None
            made += 1
            yield stream.push(token)
            if stream.ended:
                return
        yield stream.finish()
        if made == sampling.max_new_tokens:
            self.notice = f"cut off after {made} tokens; --max-new-tokens allows more"
        else:
            limit = sequence_limit(self._opened.model)
            self.notice = f"cut off: the conversation has reached the model's limit of {limit} tokens"
