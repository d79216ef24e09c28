"""The whole model: images through the vision tower and projector into the sequence of the language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.enums import ModelType
from megatron.core.inference.contexts import BaseInferenceContext
from megatron.core.tensor_parallel import scatter_to_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model.adapters import Adapters, adapt_language, adapt_tower
from neva_model.model.context import own_positions
from neva_model.model.initialization import initialize_language, initialize_projector, name_seed
from neva_model.model.language import LanguageModel
from neva_model.model.projector import build_projector
from neva_model.model.transformer import transformer_config
from neva_model.model.vision import build_tower, encode_images, freeze_tower
from neva_recipes.config import DataError, ModelConfig, Recipe
from neva_recipes.families import image_length, vision_family
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX

__all__ = ["NevaModel", "build_model"]


class NevaModel(MegatronModule):
    """Vision tower, projector and language model; without the first two, a plain language model.

    Attributes:
        vision: The transformers tower, only on the first pipeline stage of a vision-language model.
        projector: The projector, whole on every tensor-parallel rank of that stage.
        language: This stage of the language model.
        language_adapters: Adapters beside the layers of this stage; `None` without any.
        vision_adapters: Adapters beside the layers of the tower; `None` without any.
    """

    def __init__(
        self,
        config: TransformerConfig,
        model: ModelConfig,
        *,
        pre_process: bool,
        post_process: bool,
        virtual_stage: int | None = None,
    ) -> None:
        """Build this rank's share of one pipeline stage; only the tower's weights are drawn already.

        Args:
            config: The language model's configuration.
            model: The model of the recipe.
            pre_process: Whether this is the first stage.
            post_process: Whether this is the last stage.
            virtual_stage: Number of the virtual stage on this rank; `None` without virtual stages.
        """
        super().__init__(config=config)
        self.model_config = model
        self.pre_process = pre_process
        self.post_process = post_process
        # Megatron's schedules and gradient reduction need these attributes.
        self.model_type = ModelType.encoder_or_decoder
        self.vp_stage = virtual_stage
        self.share_embeddings_and_output_weights = model.language.share_embeddings_and_output_weights
        self.vision = build_tower(model.vision) if pre_process and model.vision else None
        self.projector: torch.nn.Module | None = None
        if pre_process and model.vision and model.projector:
            self.projector = build_projector(model.projector, model.vision.hidden_size, model.language.hidden_size)
        self.language = LanguageModel(
            config,
            model.language,
            pre_process=pre_process,
            post_process=post_process,
            virtual_stage=virtual_stage,
        )
        self._freeze()
        self.language_adapters = adapt_language(self.language, model.language)
        self.vision_adapters: Adapters | None = None
        if self.vision is not None and model.vision is not None:
            self.vision_adapters = adapt_tower(self.vision, model.vision)

    def _freeze(self) -> None:
        model = self.model_config
        if not model.language.trains_weights:
            self.language.requires_grad_(False)
        if self.vision is not None and model.vision is not None:
            freeze_tower(self.vision, model.vision)
        if self.projector is not None and model.projector is not None and model.projector.freeze:
            self.projector.requires_grad_(False)

    def train(self, mode: bool = True) -> "NevaModel":
        """Switch between training and evaluation mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.vision is not None and self.model_config.vision is not None and not self.model_config.vision.trains:
            self.vision.eval()
        return self

    def set_input_tensor(self, input_tensor: torch.Tensor | list[torch.Tensor | None] | None) -> None:
        """Take the hidden states of the previous pipeline stage."""
        self.language.set_input_tensor(input_tensor)

    def shared_embedding_or_output_weight(self) -> torch.Tensor | None:
        """Return this stage's copy of the weight that embeddings and output layer share."""
        return self.language.shared_embedding_or_output_weight()

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, object] | None = None,
    ) -> ShardedStateDict:
        """Return the shards of all parts.

        The tower's are keyed by its published names, since releases of transformers name its modules differently.
        """
        shards: ShardedStateDict = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        if self.vision is not None and self.model_config.vision is not None:
            family = vision_family(self.model_config.vision)
            for name, shard in shards.items():
                if name.startswith(f"{prefix}vision."):
                    shard.key = family.published_name(shard.key)
        return shards

    def part_sharded_state_dict(self, part: str, metadata: dict[str, object] | None = None) -> ShardedStateDict:
        """Return the shards of one part under the names of its own `state_dict`.

        Their place in a checkpoint is the same as in the whole model's `sharded_state_dict`.

        Args:
            part: `language`, `vision` or `projector`.
            metadata: As for `sharded_state_dict`.
        """
        whole = self.sharded_state_dict(metadata=metadata)
        prefix = f"{part}."
        return {name.removeprefix(prefix): shard for name, shard in whole.items() if name.startswith(prefix)}

    def forward(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        images: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inference_context: BaseInferenceContext | None = None,
        image_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run this pipeline stage.

        Args:
            tokens: Token ids `[batch, sequence]`, `IMAGE_TOKEN_INDEX` at every position of an image.
            position_ids: Positions `[batch, sequence]`, counting from 0 along a row.
            images: Preprocessed images `[number, 3, height, width]` in the order of their appearance, row by row.
            labels: Targets `[batch, sequence / context parallel]`, already shifted, at the positions this rank holds
                (`own_positions`); -100 means no loss.
            inference_context: Key/value cache; positions then continue from its length.
            image_features: The result of `image_features` for the images, in place of the images.

        Returns:
            On the last stage, the loss of every label in fp32 if there are labels, otherwise the logits
            `[batch, sequence / context parallel, padded vocabulary]`, whole on every tensor-parallel rank. On other
            stages, hidden states `[sequence / context parallel (/ tensor parallel), batch, hidden]`.

        Raises:
            DataError: The number of image positions differs from that of the images' features.
        """
        embeddings = self._embed(tokens, position_ids, images, image_features) if self.pre_process else None
        return self.language(
            input_ids=tokens,
            position_ids=position_ids,
            attention_mask=None,
            decoder_input=embeddings,
            labels=labels,
            inference_context=inference_context,
            runtime_gather_output=labels is None,
        )

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images that the language model sees, `[number, tokens per image, hidden]`.

        Args:
            images: Preprocessed images `[number, 3, height, width]`.
        """
        assert self.projector is not None
        features: torch.Tensor = self.projector(self._encode(images))
        return features

    def _embed(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        images: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return embeddings `[sequence, batch, hidden]` with image features inserted, cut for CP and SP."""
        at_image = tokens == IMAGE_TOKEN_INDEX
        embeddings = self.language.embedding(tokens.masked_fill(at_image, 0), position_ids)
        if self.vision is not None:
            embeddings = self._insert_images(embeddings, position_ids, at_image, images, features)
        embeddings = own_positions(embeddings, 0)
        if self.config.sequence_parallel:
            embeddings = scatter_to_sequence_parallel_region(embeddings)
        if self.language_adapters is not None and self.training and not embeddings.requires_grad:
            # The layers' own weights are fixed. Without a gradient here, recomputed layers and later pipeline stages
            # would have none either.
            embeddings.requires_grad_()
        return embeddings

    def _insert_images(
        self,
        embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        at_image: torch.Tensor,
        images: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, columns = at_image.nonzero(as_tuple=True)
        given = images if features is None else features
        number = 0 if given is None else given.shape[0]
        assert self.model_config.vision is not None
        tokens_per_image = image_length(self.model_config.vision)
        if rows.numel() != number * tokens_per_image:
            raise DataError(
                f"{rows.numel()} image positions in the tokens, but {number} images of {tokens_per_image} tokens each"
            )
        if given is not None and number > 0:
            if features is None:
                features = self.image_features(given)
            inserted = features.flatten(0, 1).to(embeddings.dtype)
            if self.language.family.positions == "learned":
                inserted = inserted + self.language.embedding.position_embeddings(position_ids[rows, columns])
            return embeddings.index_put((columns, rows), inserted)
        if self.training and torch.is_grad_enabled():
            return embeddings + 0.0 * self._trained_blank(embeddings)
        return embeddings

    def _trained_blank(self, like: torch.Tensor) -> torch.Tensor:
        """Return a number that depends on every trained weight of the tower and the projector.

        Multiplied by zero, it gives them a zero gradient in a micro batch without images. With overlapping reduction
        Megatron waits for the gradient of every trained weight, and all data-parallel ranks must have the same ones.
        """
        vision = self.model_config.vision
        assert vision is not None and self.projector is not None
        if not vision.trains:
            return self.projector(like.new_zeros(1, vision.hidden_size)).sum()
        return self.projector(self._encode(like.new_zeros(1, 3, vision.image_size, vision.image_size))).sum()

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the tower's features `[number, tokens per image, vision hidden size]`; without a graph if frozen."""
        vision = self.model_config.vision
        assert vision is not None and self.vision is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and vision.trains):
            return encode_images(self.vision, vision, images)


def build_model(
    recipe: Recipe, *, pre_process: bool, post_process: bool, virtual_stage: int | None = None
) -> NevaModel:
    """Return one chunk of a recipe's model with its initial weights, which do not depend on the layout.

    Megatron's process groups must exist. Weights that `from_pretrained` names are loaded by
    `neva_model.checkpoints`, not here.

    Args:
        recipe: The recipe.
        pre_process: Whether the chunk embeds tokens, as the first pipeline stage does.
        post_process: Whether the chunk computes logits, as the last pipeline stage does.
        virtual_stage: Number of the virtual stage on this rank; `None` without virtual stages.

    Raises:
        RecipeError: The recipe needs Transformer Engine and a GPU, and they are missing.
    """
    seed = recipe.trainer.seed
    # With gradients, Transformer Engine would keep a second, high-precision copy of FP8 weights, and the optimizer
    # would start from it instead of the weights drawn or loaded later.
    with _seeded(name_seed(seed, "vision")), torch.no_grad():
        model = NevaModel(
            transformer_config(recipe),
            recipe.model,
            pre_process=pre_process,
            post_process=post_process,
            virtual_stage=virtual_stage,
        )
    initialize_language(model.language, recipe.model.language.init_method_std, seed)
    if model.projector is not None:
        initialize_projector(model.projector, seed)
    for part, adapters in (("language", model.language_adapters), ("vision", model.vision_adapters)):
        if adapters is not None:
            adapters.initialize(seed, part)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[Any]:
    """Seed the generators from which transformers may draw a tower's weights, and restore them afterwards.

    A tower is made on torch's default device; under Lightning that is the GPU.
    """
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield
