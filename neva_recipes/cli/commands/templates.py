"""Shows the conversation templates: `nemo-run templates [NAME]`."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, get_args

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, wrap
from neva_recipes.config import ConvTemplate, PlainTable, suggest
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, read_tokenizer
from neva_recipes.prompts.conversation import IMAGE_MARK, Turn
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX, check_template, encode_pieces
from neva_recipes.prompts.templates import TEMPLATES, Part, Slot, Special, Template
from neva_recipes.terminal import print_document, shows_colour, visible
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["templates_command"]

_WIDTH = 80
_COLOUR, _PLAIN = "\x1b[30;42m", "\x1b[0m"

_EXAMPLE = (
    Turn("human", "What is shown?", image=True),
    Turn("gpt", "A seven."),
    Turn("human", "Is it odd?"),
    Turn("gpt", "Yes."),
)


class _Token(NamedTuple):
    """A token of the example: its id, its name in the vocabulary, and whether it carries loss."""

    id: int
    token: str
    loss: bool


def templates_command(argv: Sequence[str]) -> int:
    """Print the templates, or what one makes of an example: `nemo-run templates [NAME]`."""
    given = _parser().parse(argv)
    if given.name is None:
        if given.tokenizer is not None:
            raise UsageError("--tokenizer shows the tokens of one template: name it, such as nemo-run templates v1")
        document: PlainTable = {"schema": 1, "templates": [_facts(template) for template in TEMPLATES.values()]}
        text = "\n".join(_overview())
    else:
        template = TEMPLATES[given.name]
        tokens = None if given.tokenizer is None else _tokens(template, _tokenizer(given))
        spans = _spans(template)
        document = {"schema": 1, **_facts(template), "example": [{"text": t, "loss": on} for t, on in spans]}
        document |= {} if tokens is None else {"tokens": [token._asdict() for token in tokens]}
        text = "\n".join(_description(template, spans, tokens))
    print_document(f"{json.dumps(document, indent=2) if given.format == 'json' else text}\n")
    return 0


def _parser() -> StrictParser:
    parser = StrictParser(
        "nemo-run templates",
        description=(
            "The conversation templates (data.conv_template), and whose each is. With a name:\n"
            "what it makes of two questions, the first about an image. What carries loss is\n"
            "coloured at a terminal, and stands in [[ ]] elsewhere."
        ),
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", type=_name, choices=get_args(ConvTemplate), help="one of them"
    )
    parser.add_argument("--tokenizer", metavar="T", type=path_argument, help="show the tokens that this one makes")
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    return parser


def _name(word: str) -> str:
    if word not in TEMPLATES:
        hint = suggest(word, TEMPLATES)
        raise argparse.ArgumentTypeError(f"{word}: no such template{hint}; nemo-run templates lists all")
    return word


def _tokenizer(given: argparse.Namespace) -> LocalTokenizer:
    tokenizer = read_tokenizer(find_tokenizer(str(given.tokenizer)))
    if tokenizer is None:
        raise UsageError(f"--tokenizer {given.tokenizer}: expected tokenizer.json, or a SentencePiece model")
    return tokenizer


def _facts(template: Template) -> PlainTable:
    return {
        "name": template.name,
        "origin": template.origin,
        "system": template.system,
        "takes_system": template.takes_system,
        "label": template.label,
        "special_tokens": list(template.special_tokens),
        "stop": template.stop.token if template.stop else template.stop_text,
    }


def _overview() -> Iterator[str]:
    width = max(map(len, TEMPLATES))
    for template in TEMPLATES.values():
        yield f"{template.name:<{width}}  {template.origin}"


def _example(template: Template) -> Sequence[Turn]:
    return _EXAMPLE[:2] if template.asking is None else _EXAMPLE


def _spans(template: Template) -> list[tuple[str, bool]]:
    """Return the text of the example, and which parts of it carry loss."""
    groups = groupby(template.pieces(_example(template)), lambda piece: piece.carries_loss)
    return [("".join(_spelt(piece.part) for piece in pieces), on) for on, pieces in groups]


def _spelt(part: Part) -> str:
    if isinstance(part, Special):
        return part.token
    names: dict[Part, str] = {Slot.BEGIN: "BOS", Slot.START: "", Slot.IMAGE: IMAGE_MARK}
    return part if isinstance(part, str) else names[part]


def _tokens(template: Template, tokenizer: LocalTokenizer) -> list[_Token]:
    """Return the tokens of the example; an image takes one."""
    check_template(template, tokenizer)
    names = {number: token for token, number in (tokenizer.tokens | tokenizer.specials).items()}
    ids, loss = encode_pieces(template.pieces(_example(template)), template, tokenizer, 1)
    return [
        _Token(token, IMAGE_MARK if token == IMAGE_TOKEN_INDEX else names[token], on)
        for token, on in zip(ids, loss, strict=True)
    ]


def _description(
    template: Template, spans: Iterable[tuple[str, bool]], tokens: Sequence[_Token] | None
) -> Iterator[str]:
    yield f"{template.name}: {template.origin}"
    yield f"  system text of a record: {'taken' if template.takes_system else 'refused'}"
    yield wrap(f"special tokens: {' '.join(template.special_tokens) or 'none'}", "  ")
    yield ""
    if tokens is None:
        has_colour = shows_colour()
        yield "".join(_marked(visible(text), on, has_colour) for text, on in spans)
    else:
        yield from _token_lines(tokens)


def _marked(text: str, carries_loss: bool, has_colour: bool) -> str:
    if not carries_loss:
        return text
    if not has_colour:
        return f"[[{text}]]"
    # A colour that is on at the end of a line would fill the rest of it.
    return "\n".join(f"{_COLOUR}{line}{_PLAIN}" for line in text.split("\n"))


def _token_lines(tokens: Sequence[_Token]) -> Iterator[str]:
    """Yield the names of tokens with a space between them, in lines that fit a usual terminal."""
    has_colour, line, length = shows_colour(), list[str](), 0
    for carries_loss, together in groupby(tokens, lambda token: token.loss):
        names = [visible(token.token) for token in together]
        if carries_loss and not has_colour:
            names[0] = f"[[{names[0]}"
            names[-1] += "]]"
        for name in names:
            if line and length + len(name) > _WIDTH:
                yield " ".join(line)
                line, length = [], 0
            line.append(_marked(name, True, True) if carries_loss and has_colour else name)
            length += len(name) + 1
    yield " ".join(line)
