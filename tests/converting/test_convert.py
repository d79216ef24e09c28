"""Models from one layout to another and back, compared with transformers and with the files that it wrote."""

import filecmp
import json
import logging
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel, LlavaForConditionalGeneration
from transformers.utils import logging as transformers_logging

from neva_model import progress
from neva_model.checkpoints.converting.convert import convert
from neva_model.checkpoints.information import read_information, saved_recipe
from neva_model.checkpoints.load import build_saved
from neva_model.checkpoints.pretrained import load_initial_weights
from neva_model.checkpoints.resharding.reshard import reshard
from neva_model.model import ModelChunks, build_model
from neva_model.startup import prepare_process
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError
from tests.converting.models import ORIGINAL, ROWS, sources
from tests.model.model_cases import changed


def files(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", sources())
def test_a_directory_comes_back_byte_for_byte(name, world, tmp_path):
    source = world.source(name)
    convert(world.checkpoint(name), tmp_path / "back", "original" if name == "original" else "transformers")
    assert files(tmp_path / "back") == files(source)
    assert filecmp.cmpfiles(source, tmp_path / "back", files(source), shallow=False)[1:] == ([], [])


def inputs_of(recipe, rows):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, rows, (2, 48), generator=generator)
    pixels = None
    if recipe.model.vision is not None:
        tokens[:, 7:11] = -200
        pixels = torch.randn(2, 3, 28, 28, generator=generator)
    return tokens, pixels


@torch.no_grad()
def logits_of_checkpoint(path, tokens, pixels):
    model, _ = build_saved(path, saved_recipe(path), read_information(path))
    return model(tokens, torch.arange(tokens.shape[1]).expand(len(tokens), -1), pixels)


@torch.no_grad()
def logits_of(oracle, tokens, pixels):
    if pixels is None:
        return oracle(input_ids=tokens).logits
    return oracle(input_ids=tokens.where(tokens != -200, oracle.config.image_token_id), pixel_values=pixels).logits


@pytest.mark.parametrize("name", [name for name in sources() if name != "original"])
def test_a_checkpoint_computes_what_transformers_computes(name, world):
    recipe, oracle = saved_recipe(world.checkpoint(name)), world.oracles[name]
    tokens, pixels = inputs_of(recipe, 300)
    if "phi3" in name:
        tokens = tokens[:, :32]
    expected = logits_of(oracle, tokens, pixels)
    rows = recipe.model.language.vocab_size
    assert expected.shape[-1] == rows
    ours = logits_of_checkpoint(world.checkpoint(name), tokens, pixels)[..., :rows]
    assert (ours - expected).abs().max() <= 1e-4 and expected.abs().max() > 0.5


def test_a_checkpoint_of_the_original_layout_computes_the_same(world):
    tokens, pixels = inputs_of(saved_recipe(world.checkpoint("llava")), 300)
    one, other = (logits_of_checkpoint(world.checkpoint(name), tokens, pixels) for name in ("llava", "original"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["llama", "llama tied", "gpt2 as published", "llava", "llava dinov2"])
def test_core_loads_a_checkpoint_without_a_warning(name, world, caplog):
    prepare_process()  # silences what Core 0.19 says of itself, as in every process that loads one
    checkpoint = world.checkpoint(name)
    saved = saved_recipe(checkpoint)
    parts = [part for part in ("language", "vision", "projector") if getattr(saved.model, part) is not None]

    def built(source, seed):
        changes = {f"model.{part}.from_pretrained": str(source) for part in parts}
        recipe = changed(saved, {**changes, "trainer.seed": seed, "precision.precision": "fp32"})
        return ModelChunks([build_model(recipe, pre_process=True, post_process=True)]), recipe

    model, recipe = built(checkpoint, 1)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        # Core calls torch so for any checkpoint.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.distributed\.checkpoint")
        lines = load_initial_weights(model, recipe)
    assert caplog.messages == []
    assert len(lines) == len(parts) and all(f"loaded from {checkpoint} (step 0)" in line for line in lines)
    other, recipe = built(world.source(name), 2)
    load_initial_weights(other, recipe)
    expected = other.state_dict()
    for key, weight in model.state_dict().items():
        if isinstance(weight, torch.Tensor):
            assert torch.equal(weight, expected[key]), key


@pytest.mark.parametrize("name", ["qwen2", "llama tied", "gpt2 untied", "llava", "llava siglip", "llava dinov2"])
def test_what_comes_back_loads_in_transformers_without_a_warning(name, world, tmp_path, caplog):
    convert(world.checkpoint(name), tmp_path / "back")
    cls = LlavaForConditionalGeneration if "llava" in name else AutoModelForCausalLM
    transformers_logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        _, loading = cls.from_pretrained(tmp_path / "back", output_loading_info=True)
    transformers_logging.disable_propagation()
    assert not any(loading.values()) and caplog.messages == []


def by_hand(tensors):
    """Return the tensors of a LLaVA of transformers by the names that the LLaVA repository gives them."""
    return {
        new + name.removeprefix(old): tensor
        for name, tensor in tensors.items()
        for old, new in ORIGINAL
        if name.startswith(old)
    }


def assert_same_tensors(one, other):
    assert one.keys() == other.keys()
    assert [
        name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    ] == []


def test_a_tower_of_its_own_comes_back(world, tmp_path):
    """It lies in a folder of the original layout, which may be gone when the checkpoint is written again."""
    first, checkpoint = tmp_path / "first", tmp_path / "checkpoint"
    convert(world.checkpoint("llava"), first, "original")
    convert(first, checkpoint, "megatron")
    shutil.rmtree(first)
    convert(checkpoint, tmp_path / "again", "original")
    tower = json.loads((tmp_path / "again" / "config.json").read_text())["mm_vision_tower"]
    assert tower == str(tmp_path / "again" / "vision_tower")
    expected = world.oracles["llava"].model.vision_tower.state_dict()
    torch.testing.assert_close(CLIPVisionModel.from_pretrained(tower).state_dict(), expected, rtol=0, atol=0)


def test_a_tokenizer_that_would_be_passed_over_is_refused(world, tmp_path):
    with pytest.raises(CheckpointError, match="goes back to its own layout"):
        convert(world.checkpoint("llama"), tmp_path / "out", "transformers", tokenizer=str(world.source("llama")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("direct", [False, True])
def test_the_original_layout_has_the_names_and_keys_of_its_repository(direct, world, tmp_path):
    source = world.source("llava")
    convert(source if direct else world.checkpoint("llava"), tmp_path / "out", "original")
    expected = by_hand(load_file(source / "model.safetensors"))
    assert "model.mm_projector.2.bias" in expected and "model.embed_tokens.weight" in expected
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), expected)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    theirs = json.loads((world.source("original") / "config.json").read_text())
    told = {key: fields.get(key) for key in theirs}
    tower = told.pop("mm_vision_tower")
    own = {"torch_dtype": "float32", "image_aspect_ratio": "square"}
    assert told == {key: value for key, value in theirs.items() if key != "mm_vision_tower"} | own
    # The tower has no directory of its own yet, so it gets one.
    assert tower == str(tmp_path / "out" / "vision_tower")
    assert_same_tensors(
        CLIPVisionModel.from_pretrained(tower).state_dict(), world.oracles["llava"].model.vision_tower.state_dict()
    )
    # And it is read again as any other of its kind.
    convert(tmp_path / "out", tmp_path / "again")
    tokens, pixels = inputs_of(saved_recipe(tmp_path / "again"), 300)
    expected = logits_of(world.oracles["llava"], tokens, pixels)
    assert (
        logits_of_checkpoint(tmp_path / "again", tokens, pixels)[..., :ROWS] - expected[..., :ROWS]
    ).abs().max() < 1e-4


@pytest.mark.parametrize("direct", [False, True])
def test_the_original_layout_becomes_a_llava_of_transformers(direct, world, tmp_path):
    source = world.source("original")
    convert(source if direct else world.checkpoint("original"), tmp_path / "out", "transformers")
    model, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    rows = load_file(source / "model.safetensors")["lm_head.weight"].shape[0]
    back = {name: tensor[:rows] if "embed" in name or "head" in name else tensor for name, tensor in tensors.items()}
    assert_same_tensors(by_hand(back), load_file(source / "model.safetensors"))
    tokens, pixels = inputs_of(saved_recipe(world.checkpoint("original")), 300)
    expected = logits_of(world.oracles["llava"], tokens, pixels)
    with torch.no_grad():
        ids = tokens.where(tokens != -200, model.config.image_token_id)
        logits = model.eval()(input_ids=ids, pixel_values=pixels).logits
    assert (logits[..., :ROWS] - expected[..., :ROWS]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["llava", "llava linear"])
def test_a_projector_alone_is_that_of_stage_1(name, world, tmp_path):
    convert(world.checkpoint(name), tmp_path / "out", "projector")
    # The original LLaVA saves what `named_parameters` of its model calls mm_projector.
    held = torch.load(tmp_path / "out" / "mm_projector.bin", weights_only=True)
    tensors = load_file(world.source(name) / "model.safetensors")
    layers = {"llava": {"0.": "linear_1", "2.": "linear_2"}, "llava linear": {"": "linear_1"}}[name]
    expected = {
        f"model.mm_projector.{number}{kind}": tensors[f"multi_modal_projector.{layer}.{kind}"]
        for number, layer in layers.items()
        for kind in ("weight", "bias")
    }
    assert_same_tensors(held, expected)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    recipe = changed(
        saved_recipe(world.checkpoint(name)),
        {"model.projector.from_pretrained": str(tmp_path / "out"), "model.vision.from_pretrained": None}
        | {"model.language.from_pretrained": None, "precision.precision": "fp32"},
    )
    model = build_model(recipe, pre_process=True, post_process=True)
    load_initial_weights(ModelChunks([model]), recipe)
    assert torch.equal(model.projector[0].weight, tensors["multi_modal_projector.linear_1.weight"])


def test_pickled_weights_are_read_without_running_anything(world, tmp_path):
    source = tmp_path / "pickled"
    source.mkdir()
    there = world.source("qwen2")
    index = json.loads((there / "model.safetensors.index.json").read_text())
    for file in sorted(set(index["weight_map"].values())):
        torch.save(load_file(there / file), source / file.replace("safetensors", "bin"))
    index["weight_map"] = {name: file.replace("safetensors", "bin") for name, file in index["weight_map"].items()}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (source / "config.json").write_bytes((there / "config.json").read_bytes())
    convert(source, tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "back")
    back = {}
    for file in (tmp_path / "back").glob("*.safetensors"):
        back |= load_file(file)
    expected = {}
    for file in there.glob("*.safetensors"):
        expected |= load_file(file)
    assert_same_tensors(back, expected)


@pytest.mark.parametrize("name", ["llama", "internlm2 grouped", "llava", "original"])
def test_both_sides_can_be_compared(name, world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)  # otherwise a short conversion is quiet
    words = ["convert", str(world.source(name)), str(tmp_path / "checkpoint"), "--verify"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"wrote {tmp_path / 'checkpoint'} from {world.source(name)}"
    assert printed.out.splitlines()[1].startswith("the logits of both differ by at most ")
    assert re.fullmatch(r"([\d.]+ of ([\d.]+) MiB written\n)*\2 of \2 MiB written\n", printed.err)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "back"), "--verify"]) == 0
    other = {"llava": "original", "original": "transformers"}.get(name)
    if other is not None:
        words = ["convert", str(tmp_path / "checkpoint"), str(tmp_path / "other"), "--verify", f"--layout={other}"]
        assert main(words) == 0


def test_a_conversion_that_computes_something_else_is_not_kept(world, tmp_path, monkeypatch):
    from neva_model.checkpoints.weights.directory import DirectoryWeights

    really = DirectoryWeights.read
    monkeypatch.setattr(DirectoryWeights, "read", lambda self, name: really(self, name) * (1 + ("fc2" in name)))
    with pytest.raises(CheckpointError, match=r"out: is not written: its logits differ from those of .* by up to"):
        convert(world.source("qwen3"), tmp_path / "out", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_documentation(world, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
    section = text.partition("## Other layouts")[2].partition("\n## ")[0].partition("\n### ")[0]
    commands = re.findall(r"^\$ nemo-run (.*)$", section, re.MULTILINE)
    assert len(commands) == 3
    shutil.copytree(world.source("llama"), tmp_path / "llama")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("what is the digit ? it is even\n" * 200)
    more = {"gpt.pretrain": ["data.data_path=text.txt", "data.sequence_length=16", "trainer.accelerator=cpu"]}
    for command in commands:
        words = command.split()
        assert main([*words, *more.get(words[0], [])]) == 0, capsys.readouterr().err
    assert files(tmp_path / "again") == files(tmp_path / "llama")


def with_templates(source):
    """Give a directory chat templates as transformers saves several, and folders of other programs."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = {"default": "{{ 'plain' }}", "tool_use": "{{ 'with tools' }}"}
    tokenizer.save_pretrained(source)
    assert (source / "additional_chat_templates" / "tool_use.jinja").is_file()
    for folder in ("onnx", "original", ".cache"):
        (source / folder).mkdir()
        (source / folder / "model.bin").write_bytes(b"other")


def test_chat_templates_come_along_and_other_folders_are_named(world, tmp_path, capsys):
    source = shutil.copytree(world.source("llama"), tmp_path / "source")
    with_templates(source)
    templates = {"default": "{{ 'plain' }}", "tool_use": "{{ 'with tools' }}"}
    assert main(["convert", str(source), str(tmp_path / "checkpoint")]) == 0
    note = f"note: {source}: not copied, for no part of the model: the folders onnx, original\n"
    assert capsys.readouterr().err.count(note) == 1
    reshard(tmp_path / "checkpoint", tmp_path / "cut", 2, 1)
    for checkpoint in ("checkpoint", "cut"):
        assert main(["convert", str(tmp_path / checkpoint), str(tmp_path / f"{checkpoint} back")]) == 0
        assert "not copied" not in capsys.readouterr().err
        assert AutoTokenizer.from_pretrained(tmp_path / f"{checkpoint} back").chat_template == templates
    left = [path for path in files(source) if not path.startswith(("onnx/", "original/", ".cache/"))]
    assert files(tmp_path / "cut back") == left


def test_a_tower_in_a_folder_is_not_said_to_be_left(world, tmp_path, capsys):
    convert(world.checkpoint("llava"), tmp_path / "original", "original")
    assert main(["convert", str(tmp_path / "original"), str(tmp_path / "checkpoint")]) == 0
    assert "not copied" not in capsys.readouterr().err
