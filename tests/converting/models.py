"""Random models of every family as transformers saves them, a LLaVA in both layouts, and a checkpoint of each."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CLIPImageProcessorPil, CLIPVisionModel, GenerationConfig

from neva_model.checkpoints.converting.convert import convert
from tests.families.fused_models import save
from tests.model.model_cases import DINOV2, hf_language, hf_llava, llava_recipe, text_recipe
from tests.sentencepiece_models import train_words

ROWS = 421
"""An odd number, which no layout pads to."""

WORDS = ["what is", "the digit ?", "it a one", "two odd even", "number and larger", "than five"]

LANGUAGES = {
    "llama": {},
    "llama tied": {"model.language.share_embeddings_and_output_weights": True},
    "llama one group, other head size": {"model.language.num_query_groups": 1, "model.language.kv_channels": 16},
    "qwen2": {"model.language.family": "qwen2"},
    "qwen3": {"model.language.family": "qwen3", "model.language.kv_channels": 16},
    "mistral": {"model.language.family": "mistral", "model.language.sliding_window": 5},
}
FUSED = [("phi3", "grouped"), ("phi3", "tied"), ("internlm2", "grouped"), ("gpt2", "as published"), ("gpt2", "untied")]
LLAVAS = {
    "llava": {},
    "llava linear": {"model.projector.mm_projector_type": "linear"},
    "llava dinov2": DINOV2,
    "llava siglip": {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"},
}
TYPES = {"qwen2": torch.bfloat16, "llama": torch.float16}

ORIGINAL = (
    ("language_model.model.", "model."),
    ("language_model.lm_head", "lm_head"),
    ("multi_modal_projector.linear_1", "model.mm_projector.0"),
    ("multi_modal_projector.linear_2", "model.mm_projector.2"),
)
"""Names in a saved LlavaForConditionalGeneration, and those of the LLaVA repository (model/llava_arch.py)."""


@dataclass
class World:
    """Directories by name, the transformers models that they hold, and checkpoints made of them."""

    folder: Path
    oracles: dict = field(default_factory=dict)

    def source(self, name):
        return self.folder / "there" / name

    def checkpoint(self, name):
        """Convert a directory once; others must not change it."""
        path = self.folder / "checkpoints" / name
        if not path.exists():
            convert(self.source(name), path)
        return path


def sources():
    return [*LANGUAGES, *(f"{family} {shape}" for family, shape in FUSED), *LLAVAS, "original"]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("models"))
    train_words(made.folder / "tokenizer.model", WORDS)
    size = {"model.language.vocab_size": ROWS}
    for name, changes in LANGUAGES.items():
        oracle = hf_language(text_recipe(size | changes)).to(TYPES.get(name, torch.float32))
        oracle.save_pretrained(made.source(name), max_shard_size="30KB")
        # Not `float()`: rotary frequencies of half precision would stay what they are.
        made.oracles[name] = AutoModelForCausalLM.from_pretrained(made.source(name), dtype=torch.float32).eval()
    for family, shape in FUSED:
        made.oracles[f"{family} {shape}"] = save(family, shape, made.source(f"{family} {shape}"))
    for name, changes in LLAVAS.items():
        oracle = hf_llava(llava_recipe(size | changes))
        if "linear" in name:
            oracle.config.projector_hidden_act = "linear"
            oracle.model.multi_modal_projector.act = torch.nn.Identity()
            _make_identity(oracle.model.multi_modal_projector.linear_2)
        oracle.save_pretrained(made.source(name))
        made.oracles[name] = oracle
        if name in ("llava", "llava linear"):
            _processor().save_pretrained(made.source(name))
    for directory in (made.folder / "there").iterdir():
        shutil.copy(made.folder / "tokenizer.model", directory)
        GenerationConfig(temperature=0.5, do_sample=True).save_pretrained(directory)
        (directory / "LICENSE").write_text("of the model")
    save_original(made)
    return made


@torch.no_grad()
def _make_identity(linear):
    linear.weight.copy_(torch.eye(len(linear.weight)))
    linear.bias.zero_()


def _processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def save_original(made):
    """Write the LLaVA as the original project does, with its tower in a directory of its own."""
    oracle, there, tower = made.oracles["llava"], made.source("original"), made.folder / "tower"
    there.mkdir()
    vision = CLIPVisionModel(oracle.config.vision_config)
    vision.load_state_dict(oracle.model.vision_tower.state_dict())
    vision.save_pretrained(tower)
    _processor().save_pretrained(tower)
    tensors = {}
    for name, tensor in load_file(made.source("llava") / "model.safetensors").items():
        for old, new in ORIGINAL:
            if name.startswith(old):
                tensors[new + name.removeprefix(old)] = tensor.contiguous()
    save_file(tensors, there / "model.safetensors", metadata={"format": "pt"})
    text = oracle.config.text_config.to_dict()
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    keys += ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act")
    fields = {key: text[key] for key in keys}
    # The keys of liuhaotian/llava-v1.5-7b.
    fields |= {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_mm_proj": True,
    }
    (there / "config.json").write_text(json.dumps(fields))
    shutil.copy(made.folder / "tokenizer.model", there)
