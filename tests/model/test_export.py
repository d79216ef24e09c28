"""What is written for transformers computes the same there, and comes back bit for bit."""

import dataclasses
import json
import multiprocessing
import os
import re

import pytest
import torch
from model_cases import DINOV2, TOKENS_PER_IMAGE, changed, llava_recipe, pretrained, text_recipe
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from neva_model.checkpoints.distributed import save_sharded, sharding_metadata
from neva_model.checkpoints.export import main
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.checkpoints.information import CheckpointInformation
from neva_model.data import ImageProcessor, Turn, encode_prompt, get_template
from neva_model.model import build_model
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import CheckpointError, config, recipe_to_yaml
from neva_recipes.families import image_length
from neva_recipes.storage.tensors import checkpoint_tensors
from tests.exported_models import export_model
from tests.sentencepiece_models import train_words

WORDS = [
    "what",
    "is",
    "the",
    "digit",
    "?",
    "it",
    "a",
    "one",
    "two",
    "odd",
    "even",
    "number",
    "and",
    "larger",
    "than",
    "five",
]
ROWS = 420
SHAPES = {
    "clip": {},
    "tied": {"model.language.share_embeddings_and_output_weights": True},
    "rope": {
        "model.language.rotary_base": 500000.0,
        "model.language.rope_scaling_factor": 8.0,
        "model.language.max_position_embeddings": 16384,
    },
    "linear": {"model.projector.mm_projector_type": "linear"},
    "class token": {"model.vision.vision_select_feature": "cls_patch"},
    "siglip": {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"},
    "dinov2": DINOV2,
    "dinov2, other positions": {**DINOV2, "model.vision.position_image_size": 70},
    "image borders": {"model.use_im_start_end": True},
    "mistral": {"model.language.family": "mistral", "model.language.sliding_window": 5},
    "qwen2": {"model.language.family": "qwen2"},
    "qwen3": {"model.language.family": "qwen3", "model.language.kv_channels": 16},
    "vocabulary full": {"model.language.vocab_size": 400},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Train a SentencePiece model of 400 tokens in Llama's manner."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_words(path, WORDS)
    return str(path)


def recipe_of(changes):
    return llava_recipe({"model.language.vocab_size": ROWS} | changes)


def tokens_with_images(recipe, length=20):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(3, 300, (2, length), generator=generator)
    for row, start in ((0, 2), (0, 9), (1, 4)):
        tokens[row, start : start + image_length(recipe.model.vision)] = -200
    return tokens, torch.randn(3, 3, 28, 28, generator=generator)


def assert_same_weights(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if isinstance(weight, torch.Tensor):
            assert torch.equal(weight, theirs[name]), name


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_exported_model_is_the_same_in_transformers_and_back(shape, tokenizer, tmp_path):
    recipe = recipe_of(SHAPES[shape])
    rows = recipe.model.language.vocab_size
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    export_model(model, recipe, tokenizer, tmp_path / "out", max_shard_size="20KB")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 3

    oracle, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    tokens, images = tokens_with_images(recipe)
    image_token = oracle.config.image_token_index
    expected = oracle(input_ids=tokens.where(tokens != -200, image_token), pixel_values=images).logits
    logits = model(tokens, torch.arange(20).expand(2, -1), images)
    assert (logits[..., :rows] - expected[..., :rows]).abs().max() <= 1e-4
    assert expected[..., :rows].argmax(-1).equal(expected.argmax(-1)), "the image token would be generated"

    again = pretrained(recipe, tmp_path / "out")
    imported = build_model(changed(again, {"trainer.seed": 7}), pre_process=True, post_process=True)
    load_pretrained(imported, again)
    assert_same_weights(model, imported)


@torch.no_grad()
def test_a_directory_can_be_opened_as_it_is(tokenizer, tmp_path):
    recipe = recipe_of({"data.image_aspect_ratio": "pad", "model.use_im_start_end": True})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    export_model(model, recipe, tokenizer, tmp_path / "out")
    opened = recipe_from_huggingface(tmp_path / "out")
    assert image_length(opened.model.vision) == TOKENS_PER_IMAGE
    assert opened.data.image_aspect_ratio == "pad"
    assert opened.model.use_im_start_end
    opened = changed(opened, {"precision.precision": "fp32"})
    loaded = build_model(opened, pre_process=True, post_process=True).eval()
    load_pretrained(loaded, opened)
    tokens, images = tokens_with_images(recipe)
    positions = torch.arange(20).expand(2, -1)
    assert torch.equal(loaded(tokens, positions, images)[..., :402], model(tokens, positions, images)[..., :402])


@torch.no_grad()
def test_text_only_model_is_the_same_in_transformers_and_back(tokenizer, tmp_path):
    recipe = text_recipe({"model.language.vocab_size": ROWS, "precision.precision": "bf16"})
    model = build_model(recipe, pre_process=True, post_process=True).bfloat16().eval()
    export_model(model, recipe, tokenizer, tmp_path / "out")
    oracle, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert oracle.dtype == torch.bfloat16
    assert torch.equal(
        oracle.model.layers[3].mlp.down_proj.weight, model.language.decoder.layers[3].mlp.linear_fc2.weight
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode(
        "what is", add_special_tokens=False
    ) == load_tokenizer(tokenizer, vocab_size=None).encode_text("what is", prefix=True)
    again = pretrained(recipe, tmp_path / "out")
    imported = build_model(again, pre_process=True, post_process=True).bfloat16()
    load_pretrained(imported, again)
    assert_same_weights(model, imported)
    opened = recipe_from_huggingface(tmp_path / "out")
    assert opened.model.vision is None and opened.model.language.vocab_size == ROWS


@pytest.mark.parametrize("size", [(90, 40), (31, 77), (9, 9)])
@pytest.mark.parametrize("aspect", ["square", "pad"])
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_processor_makes_the_pixels_that_training_saw(tower, aspect, size, tokenizer, tmp_path):
    positions = {"model.vision.position_image_size": 70} if tower == "dinov2" else {}
    recipe = recipe_of({**SHAPES[tower], "data.image_aspect_ratio": aspect, **positions})
    model = build_model(recipe, pre_process=True, post_process=True)
    export_model(model, recipe, tokenizer, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    expected = ImageProcessor(recipe.model.vision, aspect)(image)
    pixels = processor(images=image, text="<image>", return_tensors="pt")["pixel_values"][0]
    assert expected.std() > 0.1
    assert (pixels - expected).abs().max() <= 1e-6
    opened = recipe_from_huggingface(tmp_path / "out").model.vision
    assert dataclasses.replace(opened, from_pretrained=None) == recipe.model.vision
    from_directory = changed(recipe, {"model.vision.from_pretrained": str(tmp_path / "out")})
    assert torch.equal(ImageProcessor(from_directory.model.vision, aspect)(image), expected)
    assert recipe_from_huggingface(tmp_path / "out").data.image_aspect_ratio == aspect


# The originals' texts, with the spaces that their tokenizer put after <s> and after the image written out.
CHATS = {
    "v1": "<s> A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image> \nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "llava_llama_2": "<s> [INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand "
    "the visual content that the user provides, and assist the user with a variety of tasks using natural language.\n"
    "<</SYS>>\n\n<image> \nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]",
    "mistral_instruct": "<s> [INST] <image> \nQ1 [/INST] A1 </s>[INST] Q2 [/INST]",
}


@pytest.mark.parametrize("template", CHATS)
@pytest.mark.parametrize("borders", [False, True])
def test_chats_become_the_tokens_that_training_saw(template, borders, tokenizer, tmp_path):
    recipe = recipe_of({"data.conv_template": template, "model.use_im_start_end": borders})
    model = build_model(recipe, pre_process=True, post_process=True)
    export_model(model, recipe, tokenizer, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q1"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A1"}]},
        {"role": "user", "content": "Q2"},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == (CHATS[template].replace("<image> ", "<im_start><image><im_end>") if borders else CHATS[template])

    turns = [Turn("human", "Q1", image=True), Turn("gpt", "A1", image=False), Turn("human", "Q2", image=False)]
    ours = load_tokenizer(tokenizer, vocab_size=ROWS, use_im_start_end=borders)
    prompt = encode_prompt(turns, get_template(template), ours, tokens_per_image=TOKENS_PER_IMAGE)
    ids = processor(
        images=Image.new("RGB", (28, 28)), text=text, add_special_tokens=False, return_tensors="pt"
    ).input_ids[0]
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert ids.where(ids != image_id, -200).tolist() == prompt.tokens


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "<s><image>A1\n"),
        (
            "nvgpt",
            # With the space of SentencePiece, to which the prompt is one text.
            " <extra_id_0>System\nA chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions.\n\n<extra_id_1>User\n"
            "<image>\nQ1\n<extra_id_1>Assistant\n<extra_id_2>quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,"
            "correctness:4,coherence:4,complexity:4,verbosity:4\nA1\n<extra_id_1>",
        ),
        (
            "llama_3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision "
            "assistant. You are able to understand the visual content that the user provides, and assist the user with "
            "a variety of tasks using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
            "<image>\nQ1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>",
        ),
    ],
)
def test_chat_templates_render_the_original_prompts(template, expected, tokenizer):
    from neva_model.checkpoints.huggingface.chat_template import chat_template

    loaded = load_tokenizer(tokenizer, vocab_size=None)
    hf = loaded.hf
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q1"}]},
        {"role": "assistant", "content": "A1"},
    ]
    hf.chat_template = chat_template(get_template(template), loaded)
    assert hf.apply_chat_template(chat, tokenize=False) == expected
    hf.chat_template = chat_template(get_template("v1"), loaded)
    for role in ("system", "tool"):
        with pytest.raises(Exception, match="takes a system text first"):
            hf.apply_chat_template([{"role": "user", "content": "Q1"}, {"role": role, "content": "x"}], tokenize=False)


def test_stop_tokens_and_image_positions_are_written(tokenizer, tmp_path):
    recipe = recipe_of({})
    export_model(build_model(recipe, pre_process=True, post_process=True), recipe, tokenizer, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["image_seq_length"] == TOKENS_PER_IMAGE
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [2]


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(tokenizer, tmp_path):
    recipe = recipe_of({"model.projector.mm_projector_type": "mlp3x_gelu"})
    model = build_model(recipe, pre_process=True, post_process=True)
    with pytest.raises(CheckpointError, match="mm_projector_type=mlp3x_gelu"):
        export_model(model, recipe, tokenizer, tmp_path / "three")
    recipe = recipe_of({})
    model = build_model(recipe, pre_process=True, post_process=True)
    (tmp_path / "taken").mkdir()
    with pytest.raises(CheckpointError, match=r"taken: exists already"):
        export_model(model, recipe, tokenizer, tmp_path / "taken")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, reason in (
        ("file/out", "cannot be written: Not a directory"),
        ("file/new/out", "cannot be written: Not a directory"),
        ("x" * 250, "cannot be written: File name too long"),
        ("file", "exists already; name a directory that does not"),
        ("link", "exists already; name a directory that does not"),
    ):
        message = f"^{re.escape(str(tmp_path / name))}: {reason}$"
        with pytest.raises(CheckpointError, match=message):
            export_model(model, recipe, tokenizer, tmp_path / name)
        # Nothing is loaded for it: there is no such run.
        with pytest.raises(CheckpointError, match=message):
            main([str(tmp_path / "no run"), str(tmp_path / name)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "taken"]


def test_whoever_may_read_a_new_file_may_read_an_export(tokenizer, tmp_path):
    recipe = recipe_of({})
    model = build_model(recipe, pre_process=True, post_process=True)
    before = os.umask(0o027)
    try:
        export_model(model, recipe, tokenizer, tmp_path / 'it\'s\n"ä" $x', max_shard_size="20KB")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / 'it\'s\n"ä" $x').iterdir()}
    assert modes == {0o640}


def as_graph(node):
    """Return a recipe as the Fiddle graph that is saved."""
    fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return config(
        type(node),
        **{name: as_graph(value) if dataclasses.is_dataclass(value) else value for name, value in fields.items()},
    )


@pytest.mark.parametrize("tower", [{}, DINOV2], ids=["clip", "dinov2"])
def test_the_command_exports_a_checkpoint(tower, tokenizer, tmp_path, capsys):
    recipe = recipe_of({"data.tokenizer": tokenizer, "precision.precision": "bf16", **tower})
    model = build_model(recipe, pre_process=True, post_process=True).bfloat16()
    checkpoint = tmp_path / "step-00000003"
    information = CheckpointInformation(
        step=3,
        consumed_samples=24,
        metrics={},
        projector_digest=None,
        world_size=1,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=1,
        has_average=False,
    )
    state = {"model": model.sharded_state_dict(metadata=sharding_metadata())}
    save_sharded(state, checkpoint, information, recipe_to_yaml(as_graph(recipe)))
    assert not multiprocessing.active_children(), "a process has been left behind"
    assert main([str(checkpoint), str(tmp_path / "out")]) == 0
    assert str(checkpoint) in capsys.readouterr().out
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert oracle.dtype == torch.bfloat16
    weight = model.language.decoder.layers[2].mlp.linear_fc2.weight
    assert torch.equal(oracle.model.language_model.layers[2].mlp.down_proj.weight, weight)
    for name, weight in oracle.model.vision_tower.named_parameters():
        assert torch.equal(model.vision.get_parameter(name), weight), name
    # Releases of transformers have other names in memory, and a checkpoint is for all of them.
    published = "vision.encoder.layer.1.attention.attention.query.weight"
    assert (published in checkpoint_tensors(checkpoint)) == bool(tower)
    with pytest.raises(CheckpointError, match="exists already"):
        main([str(checkpoint), str(tmp_path / "out")])
