"""Generates tokens with a key/value cache, greedily or by sampling."""

from collections.abc import Collection, Iterator, Sequence
from random import Random

import torch
from megatron.core.inference.contexts import StaticInferenceContext

from neva_model.inference.options import Sampling
from neva_model.inference.stages import agree, run_stage
from neva_model.model import NevaModel
from neva_recipes.families.rope import cache_lasts_until
from neva_recipes.prompts.questions import require_room

__all__ = ["check_length", "choose_tokens", "complete", "generate", "image_features_of", "sequence_limit"]


def sequence_limit(model: NevaModel) -> int:
    """Return the longest sequence that the model's positions allow: prompt, image tokens and answer together."""
    return model.model_config.language.longest_sequence


def check_length(model: NevaModel, length: int) -> None:
    """Check that a prompt leaves room for at least one token of an answer.

    Args:
        model: The model.
        length: Length of the prompt, image tokens included.

    Raises:
        DataError: There is no room.
    """
    require_room(length, sequence_limit(model))


@torch.no_grad()
def image_features_of(model: NevaModel, images: torch.Tensor) -> torch.Tensor:
    """Return the features `[number, tokens per image, hidden]` of images, on the model's device.

    Args:
        model: A model with a vision tower.
        images: Preprocessed images `[number, 3, height, width]`, on any device.
    """
    assert model.vision is not None
    parameter = next(model.vision.parameters())
    return model.image_features(images.to(parameter.device, parameter.dtype))


@torch.no_grad()
def generate(
    model: NevaModel,
    tokens: torch.Tensor,
    images: torch.Tensor | None = None,
    *,
    sampling: Sampling,
    stop_token_ids: Collection[int],
    image_features: torch.Tensor | None = None,
    lengths: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next token of every row, step by step.

    A row ends after its first stop token, after `sampling.max_new_tokens`, or at the model's sequence limit. The model
    must be in evaluation mode. It may be divided over tensor- and pipeline-parallel ranks, which all must call this
    with the same arguments, and get the same tokens.

    Args:
        model: The model, or this rank's share of it.
        tokens: Prompts `[batch, sequence]`, `IMAGE_TOKEN_INDEX` at every position of an image.
        images: Preprocessed images `[number, 3, height, width]`, row by row; only for prompts of equal length.
        sampling: How tokens are chosen, and the most tokens of a row, including the stop token.
        stop_token_ids: Tokens that end a row.
        image_features: The result of `NevaModel.image_features` for the images, in place of the images.
        lengths: Length of each prompt, behind which its row is not used; `None` means that all fill their rows.
        numbers: Number of each prompt: what is drawn for it depends on this and the seed alone; `None` counts rows.

    Yields:
        One entry per row: its next token, the stop token included, or `None` where it has ended or is being read.

    Raises:
        DataError: The prompts leave no room for an answer.
    """
    assert not model.training, "generation needs the model in evaluation mode"
    device, batch = next(model.parameters()).device, len(tokens)
    randoms = [_random(sampling.seed, number) for number in (range(batch) if numbers is None else numbers)]
    starts = [tokens.shape[1]] * batch if lengths is None else list(lengths)
    check_length(model, max(starts))
    ends = [min(start + sampling.max_new_tokens, sequence_limit(model)) for start in starts]
    rows, context = _Rows(tokens.to(device), starts, ends), StaticInferenceContext(batch, max(ends))
    if image_features is None and images is not None and len(images) > 0 and model.pre_process:
        image_features = image_features_of(model, images)
    longest = cache_lasts_until(model.model_config.language)
    while not rows.have_ended:
        cached, length = context.sequence_len_offset, rows.read.shape[1]
        if longest is not None and 0 < cached <= longest < length:
            context, cached = StaticInferenceContext(batch, max(ends)), 0  # its keys cannot serve so long a sequence
        logits = _next_logits(model, rows.read[:, cached:], None if cached else image_features, context)
        chosen = None if logits is None else choose_tokens(logits, sampling, rows.draws(randoms))
        yield rows.take(agree(chosen, batch, device), frozenset(stop_token_ids))


class _Rows:
    """Rows that are read and continued together.

    Prompts are read to the end of the shortest; then each step reads one token of every row, the next one of a longer
    prompt or the one just chosen. So no row is padded, and its positions are those that it has alone.

    Attributes:
        read: The tokens of every row so far `[batch, length]`.
    """

    def __init__(self, prompts: torch.Tensor, starts: list[int], ends: list[int]) -> None:
        """Begin with what all prompts have.

        Args:
            prompts: The prompts `[batch, longest]`.
            starts: Length of each prompt.
            ends: Length at which each row ends at last.
        """
        self.read = prompts[:, : min(starts)]
        self._prompts = prompts
        self._starts, self._ends = starts, ends
        self._lengths = torch.tensor(starts, device=prompts.device)
        self._ended = [False] * len(starts)

    @property
    def have_ended(self) -> bool:
        return all(self._ended)

    @property
    def _are_due(self) -> list[bool]:
        """Whether each row gets its next token from the model."""
        length = self.read.shape[1]
        return [not ended and length >= start for ended, start in zip(self._ended, self._starts, strict=True)]

    def draws(self, randoms: Sequence[Random]) -> torch.Tensor:
        """Return a number from 0 to 1 for each row `[batch]`; a row that gets no token takes none of its own."""
        pairs = zip(randoms, self._are_due, strict=True)
        return torch.tensor([random.random() if is_due else 0.0 for random, is_due in pairs], dtype=torch.float64)

    def take(self, chosen: torch.Tensor, stops: Collection[int]) -> list[int | None]:
        """Add a token to every row, and return what is new: `None` in rows that have ended or are being read.

        Args:
            chosen: The next token of each row `[batch]`, if its prompt has ended.
            stops: Tokens that end a row.
        """
        length = self.read.shape[1]
        step = [token if is_due else None for token, is_due in zip(chosen.tolist(), self._are_due, strict=True)]
        self._ended = [
            ended or token in stops or length + 1 >= end
            for ended, token, end in zip(self._ended, step, self._ends, strict=True)
        ]
        if length < self._prompts.shape[1]:
            chosen = torch.where(self._lengths > length, self._prompts[:, length], chosen)
        self.read = torch.cat([self.read, chosen[:, None]], dim=1)
        return step


def _random(seed: int | None, number: int) -> Random:
    # Python hashes a text to a state, so that neighbouring seeds and numbers share nothing.
    return Random(None if seed is None else f"{seed} {number}")


def _next_logits(
    model: NevaModel, tokens: torch.Tensor, image_features: torch.Tensor | None, context: StaticInferenceContext
) -> torch.Tensor | None:
    """Return the logits `[batch, vocabulary without padding]` after the tokens, which are added to the cache.

    Only the last pipeline stage has logits; others return `None`.
    """
    output = run_stage(model, tokens, image_features, context)
    return None if output is None else output[:, -1, : model.language.unpadded_vocab_size].float()


def choose_tokens(logits: torch.Tensor, sampling: Sampling, draws: torch.Tensor) -> torch.Tensor:
    """Return one token per row `[batch]`, drawn from the softmax of `logits / temperature` or the likeliest.

    The tokens of a row divide the numbers from 0 to 1 in the order of their ids, so that logits which round otherwise
    in another batch move its borders a little, and nothing else.

    Args:
        logits: Logits `[batch, vocabulary]` in fp32.
        sampling: How tokens are chosen; `top_k` is applied before `top_p` (nucleus sampling, Holtzman et al., 2020).
        draws: A number from 0 to 1 for each row `[batch]`, in double precision: where it falls is the token.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # Use differences to the largest logit: a tiny temperature then overflows to -inf, never to inf.
    scaled = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    probabilities, order = scaled.softmax(-1).sort(stable=True, dim=-1, descending=True)
    if sampling.top_k is not None:
        probabilities[:, sampling.top_k :] = 0
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    if sampling.top_p is not None:
        # A token stays while the likelier ones have not reached top_p, so the likeliest always stays.
        probabilities = probabilities.masked_fill(probabilities.cumsum(-1) - probabilities >= sampling.top_p, 0)
    borders = torch.zeros_like(probabilities).scatter(-1, order, probabilities).double().cumsum(-1)
    total = borders[:, -1:]
    # Rounding must not reach the end, behind which there is no token; before a border is a token of some probability.
    places = (draws.to(logits.device)[:, None] * total).minimum(total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(borders, places, right=True)[:, 0]


def complete(steps: Iterator[Sequence[int | None]], stop_token_ids: Collection[int]) -> list[list[int]]:
    """Return the whole answers of a batch, without stop tokens.

    Args:
        steps: The steps that `generate` yields.
        stop_token_ids: The tokens that end a row.
    """
    rows = [[token for token in row if token is not None] for row in zip(*steps, strict=True)]
    return [row[:-1] if row[-1] in stop_token_ids else row for row in rows]
