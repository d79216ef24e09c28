"""Options for using a model, checked before anything is loaded."""

import typing
from dataclasses import dataclass

from neva_recipes.config import ConvTemplate, UserError, suggest

__all__ = ["Sampling", "conv_template_named"]


def conv_template_named(name: str | None) -> ConvTemplate | None:
    """Return the name of a template as the user typed it, or `None`.

    Raises:
        UserError: There is no such template; the message offers the nearest names.
    """
    names = typing.get_args(ConvTemplate)
    if name is not None and name not in names:
        raise UserError(f"--conv-template={name}: expected one of {', '.join(names)}{suggest(name, names)}")
    return typing.cast(ConvTemplate | None, name)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the generation of an answer.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_p: Sample among the fewest likeliest tokens whose probabilities reach this sum; `None` means all.
        top_k: Sample among this many likeliest tokens; `None` means all.
        seed: Seed of the sampling, for each prompt of its number; `None` draws otherwise for every answer.

    Raises:
        UserError: A value is out of range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens={self.max_new_tokens}: expected at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature={self.temperature:g}: expected 0 (the likeliest token) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p={self.top_p:g}: expected more than 0 and at most 1")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k={self.top_k}: expected at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"--seed={self.seed}: expected 0 to {2**63 - 1}")
        drawing = {"--top-p": self.top_p, "--top-k": self.top_k, "--seed": self.seed}
        if self.temperature == 0 and (given := [flag for flag, value in drawing.items() if value is not None]):
            raise UserError(
                f"{' and '.join(given)}: for drawing among several tokens, but --temperature=0 always takes the "
                "likeliest: set --temperature, such as 0.7"
            )
