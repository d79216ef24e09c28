"""What a family of language models declares, and what follows from it for a model of the family."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Optional

from neva_recipes.config import ConvTemplate, LanguageConfig, PlainTable
from neva_recipes.families.keys import Keys, problems_of, read_values
from neva_recipes.families.rope import ANY_ROPE, RopeOfFamily, read_rope, rope_config_json, rope_fields, rope_problems
from neva_recipes.families.tensors import LAYER_PREFIX, Layout, Shape, Weight

__all__ = ["LanguageFamily", "sizes_of"]

_UNTOLD = ("kv_channels", "sliding_window", "rotary_base", "rope_scaling_factor", "rope")
"""Fields that a config.json may have no keys for; they then have their defaults."""


@dataclass(frozen=True)
class LanguageFamily:
    """A family of decoder-only language models that Megatron-Core's GPTModel can be.

    The plan, the model, import and export all read this, and nothing else says what a family is.

    Attributes:
        name: Its name in a recipe, as in `model.language.family=llama`.
        model_type: Its `model_type` in a config.json, which is also that of transformers' class.
        keys: The keys of its config.json. The first of its architectures is the class of an export.
        fields: Keys of its config.json, and the recipe's fields with the same meaning.
        body: The weights outside of the layers, the word embedding first.
        head: The output layer, whose tensor has another prefix than those of the body.
        layer: The weights of one layer.
        core: What a layer is made of, as fields of Core's TransformerConfig; an activation by its name in
            torch.nn.functional, or `gelu_tanh`.
        conv_template: The conversation template that its chat models are trained with; `None` if they differ.
        prefix: What the names of the body begin with in the class with an output layer.
        layers: What the names of the layers begin with below that; the number of the layer and a dot follow.
        positions: Whether attention rotates queries and keys, or embeddings of the positions are learned.
        longest: The key of its config.json that says how many positions there are.
        exported_as: The family whose class computes the same, if transformers has none of its own. A model is exported
            as one of that family, whose parameters have the same names in Core.
        rope: What its class can do with rotary positions.
    """

    name: str
    model_type: str
    keys: Keys
    fields: Mapping[str, str]
    body: tuple[Weight, ...]
    head: Weight
    layer: tuple[Weight, ...]
    core: Mapping[str, Any]
    conv_template: ConvTemplate | None = None
    prefix: str = "model."
    layers: str = "layers."
    positions: Literal["rotary", "learned"] = "rotary"
    longest: str = "max_position_embeddings"
    exported_as: Optional["LanguageFamily"] = None
    rope: RopeOfFamily = ANY_ROPE

    @property
    def export(self) -> "LanguageFamily":
        """The family that a model of this one is exported as."""
        return self.exported_as or self

    @property
    def embedding_tensor(self) -> str:
        """Name of the word embedding, below the prefix of the body."""
        return next(iter(self.body[0].tensors))

    @property
    def head_tensor(self) -> str:
        """Name of the output layer's weight, below its prefix."""
        return next(iter(self.head.tensors))

    @cached_property
    def _by_core_name(self) -> dict[str, Weight]:
        weights = (*self.body, self.head, *self.layer)
        names = {weight.core: weight for weight in weights}
        return names | {weight.fused: weight for weight in weights if weight.fused is not None}

    def weight(self, name: str) -> tuple[Weight, int | None]:
        """Return one of Core's parameters, and the layer it is in; `None` for a weight outside of the layers.

        Args:
            name: Core's name, with layers counted over the whole model.
        """
        if not name.startswith(LAYER_PREFIX):
            return self._by_core_name[name], None
        layer, _, rest = name.removeprefix(LAYER_PREFIX).partition(".")
        return self._by_core_name[rest], int(layer)

    def read(self, fields: Mapping[str, object], place: str = "") -> PlainTable:
        """Return a config.json with defaults filled in, and the rotary positions, if it has any, under `rope`.

        Args:
            fields: The configuration.
            place: Prefix of its keys in messages: the name of its group and a dot.

        Raises:
            ValueError: A value has the wrong type or is out of range; the message names it.
        """
        text = read_values(fields, self.keys, place)
        theirs = {ours: key for key, ours in self.fields.items()}
        hidden, heads = text[theirs["hidden_size"]], text[theirs["num_attention_heads"]]
        if hidden < heads and ("kv_channels" not in theirs or text[theirs["kv_channels"]] is None):
            raise ValueError(
                f"{place}{theirs['hidden_size']} is {hidden}, expected at least {theirs['num_attention_heads']}, "
                f"which is {heads}"
            )
        # What transformers takes for null.
        for ours, value in (
            ("num_query_groups", heads),
            ("kv_channels", hidden // heads),
            ("ffn_hidden_size", 4 * hidden),
        ):
            if ours in theirs and text[theirs[ours]] is None:
                text[theirs[ours]] = value
        return text | {"rope": read_rope(text, self.rope, place)} if self.positions == "rotary" else text

    def problems(self, fields: Mapping[str, object], keys: Keys | None = None, place: str = "") -> Iterator[str]:
        """Yield what is not supported in a config.json.

        Args:
            fields: The configuration, which `read` accepts.
            keys: Its known keys, if they are more than those of the family.
            place: Prefix of its keys in messages: the name of its group and a dot.
        """
        yield from problems_of(fields, keys or self.keys, place)
        if self.positions == "rotary":
            yield from rope_problems(fields, self.config(self.read(fields, place)), self.rope, place)

    def config(self, text: Mapping[str, Any], **others: Any) -> LanguageConfig:
        """Return the language model that a config.json describes.

        Args:
            text: The configuration, as `read` returns it.
            **others: Fields of the recipe that it does not tell, or that are to have another value.
        """
        return LanguageConfig(**(self.told(text) | others))

    def told(self, text: Mapping[str, Any]) -> PlainTable:
        """Return the fields of a recipe's language model that a config.json decides.

        Args:
            text: The configuration, as `read` returns it.
        """
        sizes = {ours: text[theirs] for theirs, ours in self.fields.items()}
        told = {
            **{field.name: field.default for field in dataclasses.fields(LanguageConfig) if field.name in _UNTOLD},
            "num_query_groups": sizes["num_attention_heads"],
            **sizes,
            "family": self.name,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text[self.longest],
            "share_embeddings_and_output_weights": bool(text["tie_word_embeddings"]),
        }
        if self.positions == "rotary":
            told |= rope_fields(text["rope"])
        return told

    def config_json(self, language: LanguageConfig, rows: int) -> PlainTable:
        """Return what a config.json says of a language model, without the defaults of transformers' class.

        Args:
            language: The language model.
            rows: Rows of its vocabulary.
        """
        return {
            **{
                theirs: language.head_size if ours == "kv_channels" else getattr(language, ours)
                for theirs, ours in self.fields.items()
            },
            "vocab_size": rows,
            self.longest: language.max_position_embeddings,
            **(rope_config_json(language, self.keys) if self.positions == "rotary" else {}),
            "tie_word_embeddings": language.share_embeddings_and_output_weights,
        }

    def layer_parameters(self, language: LanguageConfig, tensor: int = 1) -> tuple[int, int]:
        """Return how many weights of a layer are in matrices, and how many in norms and biases, on one rank.

        Args:
            language: A model of this family.
            tensor: Number of tensor-parallel ranks.
        """
        return _count(self.layer, language, tensor)

    def mlp_parameters(self, language: LanguageConfig) -> int:
        """Return how many weights the matrices of a layer's feed-forward part have."""
        return _count([weight for weight in self.layer if weight.core.startswith("mlp.")], language, 1)[0]

    @property
    def has_window(self) -> bool:
        """Whether a token may see only the latest tokens before it."""
        return "sliding_window" in self.fields.values()

    @property
    def norms_queries(self) -> bool:
        """Whether queries and keys have norms of their own."""
        return bool(self.core.get("qk_layernorm"))

    @property
    def mlp_inputs(self) -> int:
        """Number of matrices that the input of the feed-forward part is multiplied with: 2 for SwiGLU, otherwise 1."""
        return len(self._by_core_name["mlp.linear_fc1.weight"].parts)

    def layer_tensors(self, tensor: int) -> int:
        """Return in how many tensors a checkpoint holds a layer; each rank writes its share as one.

        Args:
            tensor: Number of tensor-parallel ranks.
        """
        # Every rank has all of a whole weight, and one of them writes it. The parts of a stack are cut apart.
        return sum(
            {Layout.WHOLE: 1, Layout.STACKED: len(weight.parts) * tensor}.get(weight.layout, tensor)
            for weight in self.layer
        )

    def start_parameters(self, language: LanguageConfig) -> int:
        """Return how many weights there are before the layers, besides the word embedding: learned positions."""
        return sum(_count(self._outside(before=True), language, 1))

    def end_parameters(self, language: LanguageConfig) -> int:
        """Return how many weights there are after the layers, besides the output layer: the final norm."""
        return sum(_count(self._outside(before=False), language, 1))

    def _outside(self, *, before: bool) -> list[Weight]:
        return [weight for weight in self.body[1:] if weight.core.startswith("embedding.") == before]


def sizes_of(language: LanguageConfig) -> dict[str, int]:
    """Return the sizes of a language model by the names of the dimensions of its tensors."""
    queries, keys = language.num_attention_heads * language.head_size, language.num_query_groups * language.head_size
    return {
        "hidden": language.hidden_size,
        "ffn": language.ffn_hidden_size,
        "queries": queries,
        "keys": keys,
        "groups": queries + 2 * keys,
        "head": language.head_size,
        "vocabulary": language.vocab_size,
        "positions": language.max_position_embeddings,
    }


def _count(weights: Iterable[Weight], language: LanguageConfig, tensor: int) -> tuple[int, int]:
    sizes = sizes_of(language)
    counts = {True: 0, False: 0}
    for weight in weights:
        shapes: Iterable[Shape] = weight.shapes(sizes).values()
        whole = sum(map(math.prod, shapes))
        counts[weight.is_matrix] += whole if weight.layout is Layout.WHOLE else whole // tensor
    return counts[True], counts[False]
