"""The model: a language model, and for vision-language training also a vision tower and a projector."""

from typing import TYPE_CHECKING, Annotated, Literal

from neva_recipes.config.adapters import LoraConfig
from neva_recipes.config.values.node import (
    ConfigNode,
    Matches,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Range,
    config_dataclass,
)
from neva_recipes.config.values.paths import OptionalPathField

__all__ = [
    "RANDOM",
    "LanguageConfig",
    "LlavaModelConfig",
    "ModelConfig",
    "ProjectorConfig",
    "RopeConfig",
    "VisionConfig",
]

RANDOM = "random"
"""Value of `from_pretrained` that asks for random weights; a folder of that name is `./random`."""


_FamilyName = Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "the name of a family, such as llama or clip")]


class _Part(ConfigNode):
    """A part of the model."""

    if TYPE_CHECKING:
        freeze: bool
        from_pretrained: OptionalPathField

    @property
    def adapters(self) -> LoraConfig | None:
        """The adapters of the part; a projector has none."""
        return getattr(self, "lora", None)

    @property
    def trains_weights(self) -> bool:
        """Whether its own weights are trained; adapters stand beside fixed weights."""
        return not self.freeze and self.adapters is None

    @property
    def trains(self) -> bool:
        """Whether anything of the part is trained: its weights, or adapters beside them."""
        return not self.freeze or self.adapters is not None

    @property
    def source(self) -> str | None:
        """Where the weights come from; `None` means random weights, whether the recipe says so or not."""
        return None if self.from_pretrained == RANDOM else self.from_pretrained


@config_dataclass
class RopeConfig(ConfigNode):
    """How rotary positions are stretched; the names and their meaning are those of rope_parameters in a config.json."""

    is_made_by_its_fields = True

    kind: Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
    """The kind (Hugging Face: rope_type); it decides which of the other fields count."""
    factor: PositiveFloat | None = None
    """How far positions are stretched; with longrope None means max_position_embeddings over the original length."""
    original_max_position_embeddings: Positive | None = None
    """llama3, yarn, longrope: the length before the stretching; None means max_position_embeddings."""
    attention_factor: PositiveFloat | None = None
    """yarn, longrope: factor on cosine and sine; None computes it from the factor."""
    beta_fast: PositiveFloat | None = None
    """yarn: turns within the original length from which on a frequency stays as it is; None means 32."""
    beta_slow: PositiveFloat | None = None
    """yarn: turns within the original length up to which a frequency is divided by the factor; None means 1."""
    mscale: NonNegativeFloat | None = None
    """yarn: with mscale_all_dim, another way to compute the attention factor."""
    mscale_all_dim: NonNegativeFloat | None = None
    """yarn: see mscale."""
    truncate: bool | None = None
    """yarn: whether the range between beta_fast and beta_slow is widened to whole numbers; None means true."""
    short_factor: list[PositiveFloat] | None = None
    """longrope: a divisor for each frequency, for sequences up to the original length."""
    long_factor: list[PositiveFloat] | None = None
    """longrope: the divisors for longer sequences."""
    low_freq_factor: PositiveFloat | None = None
    """llama3: turns within the original length up to which a frequency is divided by the factor."""
    high_freq_factor: PositiveFloat | None = None
    """llama3: turns within the original length from which on a frequency stays as it is."""
    partial_rotary_factor: Annotated[float, Range(above=0, maximum=1)] = 1.0
    """Share of a head that is rotated, its first numbers; less than 1 only where the family can."""


@config_dataclass
class LanguageConfig(_Part):
    """A decoder-only language model; its family decides what a layer is made of."""

    family: _FamilyName = "llama"
    """Family of the model: llama, qwen2, qwen3, mistral, internlm2, phi3, gpt2, or one of an installed package."""
    num_layers: Positive
    """Number of transformer layers."""
    hidden_size: Positive
    """Width of the residual stream."""
    ffn_hidden_size: Positive
    """Width of the feed-forward layer (Hugging Face: intermediate_size)."""
    num_attention_heads: Positive
    """Number of query heads."""
    num_query_groups: Positive
    """Number of key/value heads; equal to num_attention_heads for plain multi-head attention."""
    kv_channels: Positive | None = None
    """Width of one attention head; None means hidden_size / num_attention_heads."""
    vocab_size: Positive
    """Number of tokens of the tokenizer, added ones too, before padding."""
    make_vocab_size_divisible_by: Positive = 128
    """The embedding is padded to a multiple of this times tensor_model_parallel_size."""
    max_position_embeddings: Positive
    """Longest sequence the positions were trained for; linear, dynamic and yarn stretch it. If they are learned, their
    number."""
    rotary_base: PositiveFloat = 10000.0
    """Base of the rotary frequencies (Hugging Face: rope_theta); not for learned positions."""
    rope_scaling_factor: PositiveFloat | None = None
    """Llama-3.1 frequency scaling factor, short for rope.kind=llama3 with its numbers; None means no scaling."""
    layernorm_epsilon: PositiveFloat = 1e-5
    """Epsilon of the norms."""
    share_embeddings_and_output_weights: bool = False
    """Whether the output layer reuses the word embeddings."""
    sliding_window: Positive | None = None
    """Tokens that a token sees, itself and the latest before it; None means all before it."""
    init_method_std: PositiveFloat = 0.02
    """Standard deviation of randomly initialised weights."""
    hidden_dropout: Annotated[float, Range(minimum=0, maximum=1)] = 0.0
    """Dropout probability of the residual branches."""
    attention_dropout: Annotated[float, Range(minimum=0, maximum=1)] = 0.0
    """Dropout probability of the attention weights."""
    freeze: bool = False
    """Keep these weights fixed."""
    from_pretrained: OptionalPathField = None  # type: ignore[assignment]
    """Weights: a run, a checkpoint, or a Hugging Face directory or hub name; None means random,
    random that this is meant."""
    rope: RopeConfig | None = None
    """How the rotary positions are stretched; None means not at all, or by rope_scaling_factor."""
    lora: LoraConfig | None = None
    """Adapters, which are trained in place of the weights; None means none."""
    quantize: Literal["nf4"] | None = None
    """Keep the fixed weights of the linear layers in 4 bits (QLoRA: NF4 with double quantization); None means not."""

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    @property
    def longest_sequence(self) -> int:
        """Longest sequence that the rotary positions reach.

        Configurations give the length before stretching for linear and dynamic, and either length for yarn, so the
        rule is that of vLLM, which serves them.
        """
        if self.rope is None or self.rope.factor is None or self.rope.kind not in ("linear", "dynamic", "yarn"):
            return self.max_position_embeddings
        original = self.rope.kind == "yarn" and self.rope.original_max_position_embeddings
        return max(self.max_position_embeddings, int((original or self.max_position_embeddings) * self.rope.factor))

    def padded_vocab_size(self, tensor_model_parallel_size: int) -> int:
        """Rows of the embedding: vocab_size rounded up so that every tensor-parallel rank holds the same number."""
        multiple = self.make_vocab_size_divisible_by * tensor_model_parallel_size
        return -(-self.vocab_size // multiple) * multiple


@config_dataclass
class VisionConfig(_Part):
    """A vision transformer that turns an image into patch features."""

    vision_model_type: _FamilyName = "clip"
    """Family of the tower: clip, siglip, dinov2, or one that an installed package offers."""
    num_layers: Positive = 24
    """Number of transformer layers."""
    hidden_size: Positive = 1024
    """Width of the features."""
    ffn_hidden_size: Positive = 4096
    """Width of the feed-forward layer."""
    num_attention_heads: Positive = 16
    """Number of attention heads."""
    image_size: Positive = 336
    """Side of the square input image, in pixels."""
    position_image_size: Positive | None = None
    """Side of the images that its position embeddings are for, which are interpolated to image_size (DINOv2: 518);
    None means image_size."""
    patch_size: Positive = 14
    """Side of a patch, in pixels."""
    hidden_act: Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"] = "quick_gelu"
    """Activation of the feed-forward layer."""
    layernorm_epsilon: PositiveFloat = 1e-5
    """Epsilon of LayerNorm."""
    vision_select_layer: int = -2
    """Which hidden state becomes the image features; -1 is the last layer's output, -2 the one before (LLaVA)."""
    vision_select_feature: Literal["patch", "cls_patch", "skip_first"] = "patch"
    """Use the patch tokens only, or the class token too (CLIP, DINOv2); skip_first leaves out SigLIP's first too."""
    image_token_len: Positive | None = None
    """Tokens an image takes in the sequence; None derives it from the sizes, a number is checked against them."""
    freeze: bool = True
    """Keep these weights fixed."""
    from_pretrained: OptionalPathField = None  # type: ignore[assignment]
    """Weights: a run, a checkpoint, or a Hugging Face directory or hub name; None means random,
    random that this is meant."""
    lora: LoraConfig | None = None
    """Adapters, which are trained in place of the weights; None means none."""

    @property
    def position_side(self) -> int:
        """Side of the images that the position embeddings are for, in pixels."""
        return self.position_image_size or self.image_size


@config_dataclass
class ProjectorConfig(_Part):
    """The map from vision features to the language model's width."""

    mm_projector_type: Annotated[str, Matches(r"linear|mlp[1-9]x_gelu", "linear or mlpNx_gelu (mlp2x_gelu)")] = (
        "mlp2x_gelu"
    )
    """linear, or mlpNx_gelu: N linear layers with GELU between them."""
    freeze: bool = False
    """Keep these weights fixed."""
    from_pretrained: OptionalPathField = None  # type: ignore[assignment]
    """Weights: the run of stage 1, a checkpoint, or a Hugging Face LLaVA directory; None means random,
    random that this is meant."""

    @property
    def num_layers(self) -> int:
        """Number of linear layers."""
        return 1 if self.mm_projector_type == "linear" else int(self.mm_projector_type[3])


@config_dataclass
class ModelConfig(ConfigNode):
    """The whole model; without vision and projector it is a text-only language model."""

    language: LanguageConfig
    """The language model."""
    vision: VisionConfig | None = None
    """The vision tower; None for a text-only model."""
    projector: ProjectorConfig | None = None
    """The projector; None for a text-only model."""
    use_im_start_end: bool = False
    """Put an image-start and an image-end token around every image; both count in model.language.vocab_size."""
    recompute_granularity: Literal["full", "selective"] | None = None
    """Recompute activations in the backward pass: whole layers, or selected modules; None keeps them all."""
    recompute_method: Literal["uniform", "block"] | None = None
    """With full recompute: uniform splits all layers into chunks, block recomputes the first layers of a stage."""
    recompute_num_layers: Positive | None = None
    """With full recompute: layers per chunk (uniform) or layers recomputed (block)."""
    recompute_modules: list[Literal["core_attn", "mlp", "layernorm"]] | None = None
    """With selective recompute: which modules; layernorm needs Transformer Engine."""

    @property
    def has_adapters(self) -> bool:
        """Whether a part has adapters."""
        return any(part is not None and part.adapters is not None for part in (self.language, self.vision))

    @property
    def is_saved_in_part(self) -> bool:
        """Whether a checkpoint holds only the parts that are trained, since others have adapters or 4 bits."""
        return self.has_adapters or self.language.quantize is not None


if TYPE_CHECKING:

    class LlavaModelConfig(ModelConfig):
        """A model with a vision tower and a projector."""

        vision: VisionConfig
        projector: ProjectorConfig
else:
    LlavaModelConfig = ModelConfig
