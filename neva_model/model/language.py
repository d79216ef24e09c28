"""The language model: Megatron-Core's GPTModel, independent of how the vocabulary is padded."""

import torch
from megatron.core.inference.contexts import BaseInferenceContext
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model.layers import block_spec
from neva_model.model.rotary import Rotary
from neva_recipes.config import LanguageConfig
from neva_recipes.families import language_family
from neva_recipes.prompts.encoding import IGNORE_INDEX

__all__ = ["LanguageModel"]


class LanguageModel(GPTModel):
    """A decoder-only transformer whose loss and logits do not depend on how the vocabulary is padded.

    The embedding has padding rows so that every tensor-parallel rank holds the same number. Their logits are set to
    the lowest finite number, so they add nothing to the softmax and are never sampled.
    """

    def __init__(
        self,
        config: TransformerConfig,
        language: LanguageConfig,
        *,
        pre_process: bool,
        post_process: bool,
        virtual_stage: int | None = None,
    ) -> None:
        """Build this rank's share of one pipeline stage.

        Args:
            config: The configuration made by `transformer_config`.
            language: The language model of the recipe.
            pre_process: Whether this stage embeds tokens.
            post_process: Whether this stage computes logits.
            virtual_stage: Number of the virtual stage on this rank; `None` without virtual stages.
        """
        family = language_family(language)
        super().__init__(
            config,
            block_spec(config, virtual_stage, language),
            vocab_size=language.padded_vocab_size(config.tensor_model_parallel_size),
            max_sequence_length=language.max_position_embeddings,
            pre_process=pre_process,
            post_process=post_process,
            position_embedding_type="rope" if family.positions == "rotary" else "learned_absolute",
            share_embeddings_and_output_weights=language.share_embeddings_and_output_weights,
            # Image features are inserted into the embeddings of the whole sequence before it is divided.
            scatter_embedding_sequence_parallel=False,
            vp_stage=virtual_stage,
        )
        if family.positions == "rotary":
            self.rotary_pos_emb = Rotary(config, language)
        self.unpadded_vocab_size = language.vocab_size
        self.family = family

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        decoder_input: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inference_context: BaseInferenceContext | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Run this stage as `GPTModel.forward` does, with the logits of padding set to the lowest finite number.

        Args:
            input_ids: Token ids `[batch, sequence]`.
            position_ids: Positions `[batch, sequence]`.
            attention_mask: Must be `None`: attention is causal.
            decoder_input: Embeddings `[sequence, batch, hidden]` to use instead of those of `input_ids`.
            labels: Targets `[batch, sequence]`; with them the result is the loss.
            inference_context: Key/value cache.
            **kwargs: Further arguments of Core's.
        """
        if self.family.positions == "rotary":
            self.rotary_pos_emb.take_positions(position_ids, inference_context)
        output = super().forward(
            input_ids,
            position_ids,
            attention_mask,
            decoder_input=decoder_input,
            labels=labels,
            inference_context=inference_context,
            **kwargs,
        )
        if self.post_process and labels is None and self.unpadded_vocab_size < self.vocab_size:
            padding = torch.arange(self.vocab_size, device=output.device) >= self.unpadded_vocab_size
            output = output.masked_fill(padding, torch.finfo(output.dtype).min)
        return output

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy of every position `[batch, sequence]` in fp32; zero if the label is ignored.

        Args:
            labels: Target tokens `[batch, sequence]`, already shifted; `IGNORE_INDEX` means no loss.
            logits: This rank's columns of the logits `[sequence, batch, vocabulary / tensor parallel]`.
        """
        columns = logits.shape[-1]
        kept = min(max(self.unpadded_vocab_size - self.tp_group.rank() * columns, 0), columns)
        # In place and outside the graph: the softmax of these columns is zero, and so is their gradient.
        with torch.no_grad():
            logits[..., kept:] = torch.finfo(logits.dtype).min
        loss = super().compute_language_model_loss(labels, logits)
        return loss.float().masked_fill(labels == IGNORE_INDEX, 0.0)
