"""`nemo-run inspect`: what transformers, PyTorch and arithmetic say of the same models."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint as distributed_checkpoint
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError
from neva_recipes.inspection.stored import read_huggingface, stored_lines
from neva_recipes.storage.tensors import checkpoint_tensors
from tests.plan.test_files import write_tokenizer

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SIZES, "num_key_value_heads": 2, "vocab_size": 99}
TOWER = CLIPVisionConfig(**SIZES, image_size=28, patch_size=14)
LLAVA = LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=TOWER, image_token_id=98)
DINOV2 = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70)
MODELS = {
    "llama": LlamaForCausalLM(LlamaConfig(**TEXT)),
    "tied": Qwen2ForCausalLM(Qwen2Config(**TEXT, tie_word_embeddings=True)).to(torch.bfloat16),
    "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=77, n_positions=64)),
    "clip": CLIPVisionModel(TOWER).half(),
    "dinov2": Dinov2Model(DINOV2),
    "llava": LlavaForConditionalGeneration(LLAVA),
}


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    MODELS[request.param].save_pretrained(tmp_path / "model")
    return MODELS[request.param], read_huggingface(tmp_path / "model")


def test_the_counts_are_those_of_transformers(model):
    theirs, ours = model
    parameters = list(theirs.parameters())  # of shared weights one
    assert ours.parameters == sum(weight.numel() for weight in parameters)
    assert sum(part.bytes for part in ours.parts) == sum(weight.nbytes for weight in parameters)
    assert ours.details["architecture"] == type(theirs).__name__
    types = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    assert {dtype for part in ours.parts for dtype in part.types} == {types[theirs.dtype]}
    for name, tensor in ours.tensors.items():
        assert tensor.file == "model.safetensors"
        assert tensor.shape in {tuple(weight.shape) for weight in parameters}, name


def test_parts_of_a_llava(tmp_path):
    llava = MODELS["llava"]
    llava.save_pretrained(tmp_path)
    counts = {part.name: part.parameters for part in read_huggingface(tmp_path).parts}
    inner = llava.model
    assert counts == {
        "language": inner.language_model.num_parameters() + llava.lm_head.weight.numel(),
        "vision": inner.vision_tower.num_parameters(),
        "projector": sum(weight.numel() for weight in inner.multi_modal_projector.parameters()),
    }


def problems(path):
    return {use.name: use.problem for use in read_huggingface(path).uses}


def test_what_a_directory_can_be_used_for(tmp_path):
    """What is refused here is refused by the field too; the one is the reason that the other gives."""
    MODELS["llama"].save_pretrained(tmp_path / "text")
    MODELS["clip"].save_pretrained(tmp_path / "tower")
    MODELS["llava"].save_pretrained(tmp_path / "both")
    fields = ["model.language", "model.vision", "model.projector.from_pretrained"]
    can = {name: [problems(tmp_path / name)[field] is None for field in fields] for name in ("text", "tower", "both")}
    assert can == {"text": [True, False, False], "tower": [False, True, False], "both": [True, True, True]}
    for name in can:
        assert problems(tmp_path / name)["nemo-run chat"] is not None  # there is no tokenizer
    for field, name in (("model.language", "tower"), ("model.vision", "text")):
        assert main(["llava.finetune", "size=tiny", f"{field}={tmp_path / name}", "--dry-run"]) == 2


@pytest.mark.parametrize("side", [28, 70])
def test_a_tower_that_interpolates_has_the_images_of_its_processor(side, tmp_path):
    Dinov2Model(DINOV2).save_pretrained(tmp_path)
    BitImageProcessorPil(size={"shortest_edge": 80}, crop_size={"height": side, "width": side}).save_pretrained(
        tmp_path
    )
    (part,) = read_huggingface(tmp_path).parts
    others = ", positions of images of 70 pixels" if side == 28 else ""
    assert part.shape == f"2 layers of width 32, 2 heads, images of {side} pixels in patches of 14{others}"


def test_of_a_whole_clip_the_other_half_is_not_used(tmp_path):
    words = {**SIZES, "vocab_size": 50}
    whole = CLIPModel(CLIPConfig(text_config=words, vision_config=TOWER.to_dict()))
    whole.save_pretrained(tmp_path)
    read = read_huggingface(tmp_path)
    counts = {part.name: part.parameters for part in read.parts}
    assert counts == {"vision": whole.vision_model.num_parameters(), "not used": None}
    assert sum(part.tensors for part in read.parts) == len(whole.state_dict())


def test_what_a_config_says_that_is_not_supported_is_why_not(tmp_path):
    MODELS["llama"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    assert "attention_bias" in problems(tmp_path)["model.language"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mixtral"}))
    with pytest.raises(CheckpointError, match="model_type is mixtral: expected"):
        read_huggingface(tmp_path)


def test_screen(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MODELS["tied"].save_pretrained("a qwen")
    assert main(["inspect", "a qwen"]) == 0
    path = tmp_path / "a qwen"
    assert capsys.readouterr().out == (
        f"{path}\n"
        "  a Qwen2ForCausalLM, in the layout of transformers\n"
        "\n"
        "part      kind   type  parameters  tensors       size\n"
        "language  qwen2  BF16      68,352       26  133.5 KiB\n"
        "\n"
        "language    2 layers of width 64, 4 heads, 2 for keys and values, feed-forward\n"
        "            96, 32,768 positions, embeddings and output layer shared\n"
        "vocabulary  99 rows\n"
        "tokenizer   holds no tokenizer: expected tokenizer.json or tokenizer.model\n"
        "files       model.safetensors\n"
        "\n"
        "It can be used as\n"
        f"  model.language='{path}'\n"
        "and not as\n"
        "  model.vision: has no tensor vision_model.embeddings.patch_embedding.weight, so\n"
        "    no vision tower\n"
        "  model.projector.from_pretrained: has no tensor\n"
        "    multi_modal_projector.linear_1.weight, so no projector\n"
        "  nemo-run chat: holds no tokenizer: expected tokenizer.json or tokenizer.model\n"
        "  data.tokenizer: holds no tokenizer: expected tokenizer.json or tokenizer.model\n"
    )


def test_tokens_without_a_row_are_told_and_refused_as_a_training_refuses_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "tokens")
    tokens = len(PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokens"))
    (tmp_path / "text.txt").write_text("Some words.\n" * 2000)
    use = "model.language=few"
    for rows, count in ((tokens - 3, f"{tokens} tokens, of which 3 have no row"), (tokens, f"{tokens} tokens")):
        LlamaForCausalLM(LlamaConfig(**{**TEXT, "vocab_size": rows})).save_pretrained("few")
        write_tokenizer(tmp_path / "few")
        read = read_huggingface(tmp_path / "few")
        assert read.facts["tokenizer"] == count
        train = ["gpt.pretrain", "size=tiny", "data.data_path=text.txt", use, "data.tokenizer=few", "--dry-run"]
        code = main(train)
        assert ("vocabulary-size" in capsys.readouterr().out) == (rows < tokens) == (code == 2)
        found = problems(tmp_path / "few")
        assert (found["model.language"] is not None) == (rows < tokens)
        # The remedy is one, and a chat needs none.
        if rows < tokens:
            remedy = f"model.language.vocab_size={tokens}"
            assert found["model.language"].startswith(f"3 of its tokens have no row: {remedy} ")
            assert main([*train[:-1], remedy, "--dry-run"]) == 0
        assert found["nemo-run chat"] is None and found["data.tokenizer"] is None
        assert main(["chat", "few", "--prompt", "Hi", "--max-new-tokens", "1"]) == 0


def test_a_directory_with_a_tokenizer_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "tokens")
    tokens = len(PreTrainedTokenizerFast.from_pretrained("tokens"))
    assert main(["inspect", "tokens"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"{tmp_path}/tokens",
        "  a tokenizer alone, without a model",
        "",
        f"tokenizer  {tokens} tokens",
    ]
    assert lines[6:] == [
        "It can be used as",
        f"  data.tokenizer={tmp_path}/tokens",
        "and not as",
        "  model.language: holds no model",
        "  nemo-run chat: holds no model",
    ]
    assert main(["inspect", "tokens", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["vocabulary"]["tokens"], told["parts"]) == ("tokenizer", tokens, [])
    # A damaged one is named; a run in which somebody has put one stays a run.
    (tmp_path / "tokens" / "tokenizer.json").write_text("{")
    assert main(["inspect", "tokens"]) == 2
    assert "tokenizer.json" in capsys.readouterr().err
    (tmp_path / "tokens" / "recipe.yaml").write_text("")
    assert main(["inspect", "tokens"]) == 2
    assert "checkpoint" in capsys.readouterr().err


def test_every_tensor_on_request(tmp_path, capsys):
    MODELS["gpt2"].save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path), "--tensors"]) == 0
    assert capsys.readouterr().out.endswith("transformer.wte.weight              F32   77 x 32\n")
    assert main(["inspect", str(tmp_path), "--tensors", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["tensors"]
    state = MODELS["gpt2"].state_dict()
    assert {name: entry["shape"] for name, entry in listed.items()} == {
        name: list(state[name].shape) for name in state if name != "lm_head.weight"
    }


def test_weights_that_are_equal_by_chance_count_twice(tmp_path):
    """Before training, an untied model may begin with equal matrices; transformers counts both."""
    model = LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=False))
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight.data)
    model.save_pretrained(tmp_path)
    assert read_huggingface(tmp_path).parameters == model.num_parameters()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_without_tensors_is_named(name, tmp_path):
    LlamaConfig(**TEXT).save_pretrained(tmp_path)
    if name.endswith(".bin"):
        torch.save({}, tmp_path / name)
    else:
        save_file({}, tmp_path / name)
    with pytest.raises(CheckpointError, match="holds no weights: there are no tensors in its files"):
        read_huggingface(tmp_path)


def test_a_directory_is_inspected_without_torch(tmp_path):
    MODELS["llava"].save_pretrained(tmp_path)
    code = (
        "import sys; from neva_recipes.cli.main import main; main(['inspect', sys.argv[1]]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "LlavaForConditionalGeneration" in done.stdout
    assert not {"torch", "transformers", "numpy"} & set(done.stderr.split())


@pytest.mark.parametrize("word", ["nowhere", "nowhere/at/all", "."])
def test_what_is_no_model_is_one_line(word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", word]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err


TENSORS = {
    "language.embedding.word_embeddings.weight": torch.zeros(3, 4, dtype=torch.bfloat16),
    "a scalar": torch.tensor(2.0, dtype=torch.float64),
    "counts": torch.zeros(5, dtype=torch.int64),
    "eight": torch.zeros(2, 2, dtype=torch.float8_e4m3fn),
    "nothing": torch.zeros(0, 7, dtype=torch.float16),
    "bits": torch.zeros(1, dtype=torch.bool),
}


@pytest.fixture
def saved(tmp_path):
    """Tensors and another value, as PyTorch saves them."""
    state = {**TENSORS, "random": {"any": ["thing", 1]}}
    distributed_checkpoint.save(state, checkpoint_id=tmp_path / "saved", no_dist=True)
    return tmp_path / "saved"


def test_the_table_of_a_checkpoint_is_that_of_torch(saved):
    theirs = distributed_checkpoint.FileSystemReader(saved).read_metadata().state_dict_metadata
    shapes = {name: tuple(entry.size) for name, entry in theirs.items() if hasattr(entry, "size")}
    ours = checkpoint_tensors(saved)
    assert {name: tensor.shape for name, tensor in ours.items()} == shapes
    assert shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    types = [ours[name].dtype for name in TENSORS]
    assert types == ["BF16", "F64", "I64", "F8_E4M3", "F16", "BOOL"]


class _Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_the_table_runs(saved, tmp_path):
    victim = tmp_path / "victim"
    (saved / ".metadata").write_bytes(pickle.dumps(_Harmful(str(victim))))
    with pytest.raises(CheckpointError, match="cannot be read as a table of tensors"):
        checkpoint_tensors(saved)
    assert not victim.exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.99])
def test_a_cut_table_is_named(saved, share):
    content = (saved / ".metadata").read_bytes()
    (saved / ".metadata").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"\.metadata: cannot be read as a table of tensors"):
        checkpoint_tensors(saved)
    (saved / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="is missing: not a complete checkpoint"):
        checkpoint_tensors(saved)


def test_lines_fit_a_terminal(model):
    _, ours = model
    for line in stored_lines(ours):
        assert len(line) <= 80 or str(ours.path) in line
