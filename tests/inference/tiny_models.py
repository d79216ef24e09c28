"""Small transformers models with weights that matter, their directories, and a run that holds one of them."""

import dataclasses
from pathlib import Path

import fiddle as fdl
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from neva_model.data import encode_prompt, get_template, read_image
from neva_recipes.config import config, recipe_to_yaml

IMAGE_SIZE = 28
TOKENS_PER_IMAGE = 4
SEQUENCE_LIMIT = 384
END_TOKEN = 2
BYTE_TOKENS = slice(3, 259)


def llama_config(vocab_size, num_hidden_layers=3):
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=SEQUENCE_LIMIT,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
    )


def draw_weights(model):
    """Give every weight a value large enough for answers that wander through the vocabulary."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator)
            parameter.copy_(drawn + 1.0 if parameter.dim() == 1 else drawn)
        # Byte tokens become the unlikeliest, since random bytes are no text.
        model.lm_head.weight[BYTE_TOKENS] = 0.0
        # Answers should come to an end now and then.
        model.lm_head.weight[END_TOKEN] *= 4.0
    return model.eval()


def make_llava(tokenizer_size):
    """Return a LLaVA whose vocabulary is the tokenizer's and one row that marks image positions."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=14,
    )
    return draw_weights(
        LlavaForConditionalGeneration(
            LlavaConfig(
                text_config=llama_config(tokenizer_size + 1),
                vision_config=vision,
                image_token_index=tokenizer_size,
                image_seq_length=TOKENS_PER_IMAGE,
            )
        )
    )


def make_llama(tokenizer_size, **sizes):
    return draw_weights(LlamaForCausalLM(llama_config(tokenizer_size, **sizes)))


def save_directory(model, tokenizer, directory: Path, *, with_images):
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if with_images:
        square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=square).save_pretrained(directory)
    return directory


def save_run(model, recipe, run: Path, tokenizer=None):
    """Write a model as a run of ours with one checkpoint, which tells of the tokenizer if there is one."""
    from neva_model.checkpoints.digest import weights_digest
    from neva_model.checkpoints.distributed import save_sharded, sharding_metadata
    from neva_model.checkpoints.information import CheckpointInformation
    from neva_recipes.run_directory.names import checkpoint_name

    text = recipe_to_yaml(as_config(recipe))
    (run / "checkpoints").mkdir(parents=True)
    (run / "recipe.yaml").write_text(text, encoding="utf-8")
    information = CheckpointInformation(
        step=7,
        consumed_samples=7,
        metrics={},
        projector_digest=None if model.projector is None else weights_digest(model.projector.state_dict()),
        world_size=1,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=1,
        has_average=False,
        vocabulary_digest=None if tokenizer is None else tokenizer.vocabulary_digest(),
    )
    state = {"model": model.sharded_state_dict(metadata=sharding_metadata())}
    save_sharded(state, run / "checkpoints" / checkpoint_name(7), information, text)
    return run


def as_config(node) -> fdl.Config:
    """Return the Fiddle config of a built recipe."""
    values = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return config(
        type(node),
        **{name: as_config(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()},
    )


def oracle_answer(oracle, opened, turns, image, new_tokens, *, must_end=False):
    """What transformers answers to the same prompt, decoded in one go."""
    prompt = encode_prompt(turns, get_template("v1"), opened.tokenizer, tokens_per_image=TOKENS_PER_IMAGE)
    tokens = torch.tensor([prompt.tokens])
    image_row = getattr(oracle.config, "image_token_index", 0)
    pixels = {} if image is None else {"pixel_values": opened.image_processor(read_image(image))[None]}
    with torch.no_grad():
        generated = oracle.generate(
            input_ids=tokens.where(tokens != -200, image_row),
            attention_mask=torch.ones_like(tokens),
            **pixels,
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=opened.tokenizer.eos_id,
            pad_token_id=0,
        )[0, len(prompt.tokens) :]
    assert not must_end or generated[-1] == opened.tokenizer.eos_id, "ask something else: this answer does not end"
    return opened.tokenizer.decode(generated.tolist())
