"""`nemo-run extend-vocab`, against transformers, SentencePiece and the rows themselves."""

import errno
import json
import shutil
import subprocess
import sys

import pytest
import sentencepiece
import tokenizers
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from neva_model.checkpoints.extending import extend as extending_module
from neva_model.checkpoints.extending.extend import extend_vocabulary
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.storage.exports import TrainedWith, write_digests
from neva_recipes.tokenizers import add_tokens
from tests.byte_level_tokenizers import train_byte_level
from tests.sentencepiece_models import train_sentencepiece

TEXT = ["a red square on a white ground", "which digit is this? seven, zero, five", "the answer is a leaf"]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
OLD = 330
"""Pieces of the SentencePiece model."""


@pytest.fixture
def llama(tmp_path):
    """A Llama with the tokenizer of its rows, its weights in several files."""
    folder = tmp_path / "a llama"
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=OLD)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="20KB")
    train_sentencepiece(folder / "tokenizer.model", TEXT * 20, OLD)
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "legacy": False, "chat_template": "{{ 1 }}"}))
    (folder / "LICENSE").write_text("mine")
    return folder


def byte_level(folder, vocab_size, more=()):
    """Write a byte-level tokenizer; `more` are tokens behind its vocabulary."""
    return train_byte_level(folder, TEXT * 20, vocab_size, ["<|end|>"], more, eos_token="<|end|>")


def weights(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as content:
            found |= {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 not a dictionary
    return found


def assert_only_rows_were_added(before, after, matrices):
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        assert new[name].dtype == tensor.dtype
        kept = new[name][: len(tensor)] if name in matrices else new[name]
        assert torch.equal(kept, tensor), name


def with_extra_ids(folder, target):
    add_tokens(str(folder), target)
    return target


def test_the_tokens_of_neva(llama, tmp_path, capsys):
    tokenizer, out = with_extra_ids(llama, tmp_path / "tokenizer"), tmp_path / "out"
    assert main(["extend-vocab", str(llama), str(out), "--tokenizer", str(tokenizer)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {out}: 8 new tokens, {OLD + 8} rows, {OLD} before"
    assert lines[2] == f"    {OLD}  <extra_id_0>" and len(lines) == 10
    matrices = ["model.embed_tokens.weight", "lm_head.weight"]
    assert_only_rows_were_added(llama, out, matrices)
    # The new rows, from what SentencePiece makes of the tokens.
    splitter = sentencepiece.SentencePieceProcessor(str(llama / "tokenizer.model"), add_bos=False)
    for name in matrices:
        before, after = weights(llama)[name], weights(out)[name]
        for number in range(8):
            pieces = splitter.encode(f"a<extra_id_{number}>")[len(splitter.encode("a")) :]
            expected = before[pieces].double().mean(0).to(torch.bfloat16)
            assert torch.equal(after[OLD + number], expected)
    # transformers reads all of it, and the old tokens have the old logits.
    old, new = (AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval() for place in (llama, out))
    assert new.config.vocab_size == OLD + 8
    ids = torch.randint(3, OLD, (2, 20), generator=torch.Generator().manual_seed(0))
    assert (new(ids).logits[..., :OLD] - old(ids).logits).abs().max() <= 1e-6
    words = AutoTokenizer.from_pretrained(out)
    assert words.encode("<extra_id_3>", add_special_tokens=False)[-1] == OLD + 3
    assert words.chat_template == "{{ 1 }}"
    assert (out / "LICENSE").read_text() == "mine"
    size = json.loads((out / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert size == sum(tensor.nbytes for tensor in weights(out).values())


def test_a_least_number_of_rows(llama, tmp_path, capsys):
    tokenizer, out = with_extra_ids(llama, tmp_path / "tokenizer"), tmp_path / "out"
    assert main(["extend-vocab", str(llama), str(out), "--tokenizer", str(tokenizer), "--rows=400"]) == 0
    assert f"8 new tokens, 400 rows, {OLD} before" in capsys.readouterr().out
    assert_only_rows_were_added(llama, out, ["model.embed_tokens.weight", "lm_head.weight"])
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 400
    extend_vocabulary(llama, tmp_path / "less", str(tokenizer), least_rows=5)
    assert len(weights(tmp_path / "less")["lm_head.weight"]) == OLD + 8


def test_a_recipe_takes_the_result(llama, tmp_path, capsys):
    out = tmp_path / "out"
    extend_vocabulary(llama, out, str(with_extra_ids(llama, tmp_path / "tokenizer")))
    (tmp_path / "img").mkdir()
    data = [{"id": "1", "conversations": [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a leaf"}]}] * 8
    (tmp_path / "data.json").write_text(json.dumps(data))
    fields = [f"data.data_path={tmp_path / 'data.json'}", f"data.image_folder={tmp_path / 'img'}"]
    fields += ["data.conv_template=nvgpt", "data.global_batch_size=8", "data.micro_batch_size=8", "--dry-run"]
    assert main(["llava.finetune", "size=tiny", f"model.language={out}", *fields]) == 0
    assert main(["llava.finetune", "size=tiny", f"model.language={llama}", *fields]) == 2
    assert "has no special token <extra_id_" in capsys.readouterr().err


def test_a_bare_model_file_keeps_what_goes_with_the_old_one(llama, tmp_path):
    add_tokens(str(llama / "tokenizer.model"), tmp_path / "new.model", ["<a>"])
    # What transformers needs to keep the token whole stands in a directory only; the rows are the same.
    out = tmp_path / "out"
    done = extend_vocabulary(llama, out, str(tmp_path / "new.model"))
    assert done.tokens == {OLD: "<a>"}
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"] == "{{ 1 }}"
    assert (out / "tokenizer.model").read_bytes() == (tmp_path / "new.model").read_bytes()


def test_shared_matrices_and_words_of_a_byte_level_tokenizer(tmp_path):
    source, tokenizer, out = tmp_path / "source", tmp_path / "tokenizer", tmp_path / "out"
    rows = len(byte_level(source, 280).get_vocab())
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, vocab_size=rows, tie_word_embeddings=True))
    model.save_pretrained(source)
    old = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    byte_level(tokenizer, 310, ["<|image|>"])
    done = extend_vocabulary(source, out, str(tokenizer))
    assert done.matrices == ("model.embed_tokens.weight",) and done.rows == 311
    assert_only_rows_were_added(source, out, done.matrices)
    before, after = (weights(folder)["model.embed_tokens.weight"] for folder in (source, out))
    words = {number: tokenizers.decoders.ByteLevel().decode([token]) for number, token in done.tokens.items()}
    assert len(words) == 31 and words[310] == "<|image|>" and any(word.startswith(" ") for word in words.values())
    for number, word in words.items():
        torch.testing.assert_close(after[number], before[old.encode(word).ids].mean(0), rtol=0, atol=1e-7)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("init", ["mean", "zero"])
def test_other_rows_and_padding(llama, tmp_path, init):
    tokenizer, out = with_extra_ids(llama, tmp_path / "tokenizer"), tmp_path / "out"
    words = [
        "extend-vocab",
        str(llama),
        str(out),
        "--tokenizer",
        str(tokenizer),
        "--init",
        init,
        "--divisible-by",
        "64",
    ]
    assert main(words) == 0
    # ceil(338 / 64) * 64 = 384 rows; NeMo's count of new rows is 384 - 330.
    before, after = (weights(folder)["lm_head.weight"].double() for folder in (llama, out))
    assert after.shape == (384, 32) and json.loads((out / "config.json").read_text())["vocab_size"] == 384
    mean = before.mean(0).to(torch.bfloat16).double()
    assert torch.equal(after[OLD:338], torch.zeros(8, 32).double() if init == "zero" else mean.expand(8, -1))
    assert torch.equal(after[338:], mean.expand(46, -1))


def test_rows_to_spare_are_used_first(tmp_path):
    """As in Qwen, whose matrices have more rows than its tokenizer has tokens."""
    source, tokenizer, out = tmp_path / "source", tmp_path / "tokenizer", tmp_path / "out"
    rows = len(byte_level(source, 280).get_vocab())
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=rows + 20, n_positions=64))
    model.save_pretrained(source)
    byte_level(tokenizer, 290)
    done = extend_vocabulary(source, out, str(tokenizer), init="zero")
    assert (done.rows, done.rows_before) == (rows + 20, rows + 20)
    before, after = (weights(folder)["transformer.wte.weight"] for folder in (source, out))
    changed = [number for number in range(rows + 20) if not torch.equal(before[number], after[number])]
    assert changed == list(done.tokens) == list(range(280, 290))


def test_a_moved_id_is_named(llama, tmp_path, capsys):
    train_sentencepiece(tmp_path / "other.model", [*TEXT * 20, "something else entirely"], OLD + 5)
    assert main(["extend-vocab", str(llama), str(tmp_path / "out"), "--tokenizer", str(tmp_path / "other.model")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: tokenizer {tmp_path / 'other.model'}: ") and error.count("\n") == 1
    assert "which has the id" in error and "so none of them may move" in error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def same_tokenizer(llama, tmp_path):
    return llama, "nothing to extend"


def with_eyes(llama, tmp_path):
    text, vision = LlamaConfig(**SIZES, vocab_size=OLD), CLIPVisionConfig(**SIZES, image_size=28, patch_size=14)
    LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision)).save_pretrained(
        tmp_path / "llava"
    )
    return tmp_path / "llava", "holds a LlavaForConditionalGeneration, expected a language model alone"


def without_tokenizer(llama, tmp_path):
    (llama / "tokenizer.model").unlink()
    return llama, "holds no tokenizer.json and no tokenizer.model"


def pickled(llama, tmp_path):
    state = weights(llama)
    for file in llama.glob("*.safetensors*"):
        file.unlink()
    torch.save(state, llama / "pytorch_model.bin")
    return llama, "expected safetensors"


def lost_shard(llama, tmp_path):
    min(llama.glob("*.safetensors")).unlink()
    return llama, "is missing"


def cut_shard(llama, tmp_path):
    file = max(llama.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    return llama, "is damaged or incomplete"


def other_family(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "model_type": "mixtral"}))
    return llama, "model_type is mixtral"


@pytest.mark.parametrize(
    "case",
    [same_tokenizer, with_eyes, without_tokenizer, pickled, lost_shard, cut_shard, other_family],
    ids=lambda case: case.__name__,
)
def test_one_line_says_why_not(case, llama, tmp_path, capsys):
    tokenizer = with_extra_ids(llama, tmp_path / "tokenizer")
    source, message = case(llama, tmp_path)
    named = llama if case is same_tokenizer else tokenizer
    capsys.readouterr()  # transformers shows its progress
    assert main(["extend-vocab", str(source), str(tmp_path / "out"), "--tokenizer", str(named)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_tokens_of_added_tokens_json_have_rows(llama, tmp_path):
    """transformers gives these tokens their ids; pieces of another tokenizer must not take their rows."""
    added = {"<|im_end|>": OLD, "<|im_start|>": OLD + 1}
    (llama / "added_tokens.json").write_text(json.dumps(added))
    known = AutoTokenizer.from_pretrained(llama).get_vocab()
    assert added.items() <= known.items()
    assert added.items() <= read_tokenizer(llama).tokens.items()
    tokenizer = tmp_path / "new.model"
    add_tokens(str(llama / "tokenizer.model"), tokenizer, ["<a>", "<b>", "<c>"])
    with pytest.raises(DataError, match=r"'<\|im_end\|>', which has the id 330 in .*, is gone"):
        extend_vocabulary(llama, tmp_path / "out", str(tokenizer))


def test_only_the_files_that_are_read_are_copied(llama, tmp_path, capsys):
    """Beside shards lies a whole file of other types, which transformers takes; weights of other formats stay."""
    tokenizer, out = str(with_extra_ids(llama, tmp_path / "tokenizer")), tmp_path / "out"
    save_file({name: tensor.float() for name, tensor in weights(llama).items()}, llama / "model.safetensors")
    for name in ("consolidated.safetensors", "tf_model.h5", "model.gguf", "rust_model.ot", "pytorch_model.bin"):
        (llama / name).write_bytes(b"old rows")
    (llama / "consolidated.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    capsys.readouterr()
    assert main(["extend-vocab", str(llama), str(out), "--tokenizer", tokenizer]) == 0
    error = capsys.readouterr().err
    assert error.startswith("note: not copied: consolidated.safetensors, model-00001-of-") and "tf_model.h5" in error
    assert {file.name for file in out.glob("*.safetensors*")} == {"model.safetensors"}
    assert not any(
        (out / name).exists() for name in ("tf_model.h5", "model.gguf", "rust_model.ot", "pytorch_model.bin")
    )
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == OLD + 8


def test_the_index_counts_what_there_is(llama, tmp_path):
    index = llama / "model.safetensors.index.json"
    out = tmp_path / "out"
    extend_vocabulary(llama, out, str(with_extra_ids(llama, tmp_path / "tokenizer")))
    before, after = (json.loads((place / index.name).read_text())["metadata"] for place in (llama, out))
    assert before["total_parameters"] == sum(tensor.numel() for tensor in weights(llama).values())
    assert after["total_parameters"] == sum(tensor.numel() for tensor in weights(out).values())
    assert after["total_size"] == sum(tensor.nbytes for tensor in weights(out).values())


def test_a_token_without_a_row_gets_one(llama, tmp_path):
    """The old tokenizer names a token for padding that the model never had a row for."""
    path = llama / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<pad>"}))
    assert read_tokenizer(llama).tokens["<pad>"] == OLD
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(llama, tokenizer, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
    more = {**json.loads(path.read_text()), "extra_special_tokens": ["<x>"]}
    (tokenizer / path.name).write_text(json.dumps(more))
    done = extend_vocabulary(llama, tmp_path / "out", str(tokenizer))
    assert done.tokens == {OLD + 1: "<x>"} and done.rows == OLD + 2
    assert_only_rows_were_added(llama, tmp_path / "out", done.matrices)
    before, after = (weights(folder)["lm_head.weight"] for folder in (llama, tmp_path / "out"))
    assert torch.equal(after[OLD], before.double().mean(0).to(torch.bfloat16))


def test_a_damaged_export_is_not_made_whole(llama, tmp_path):
    write_digests(llama, None, TrainedWith(None))
    file = max(llama.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=file.name):
        extend_vocabulary(llama, tmp_path / "out", str(with_extra_ids(llama, tmp_path / "tokenizer")))
    assert not (tmp_path / "out").exists()


def test_odd_places_and_files(llama, tmp_path, capsys, monkeypatch):
    tokenizer = str(with_extra_ids(llama, tmp_path / "tokenizer"))
    config = llama / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    out = llama / "in ner"
    monkeypatch.chdir(tmp_path)
    assert main(["extend-vocab", str(llama), str(out), "--tokenizer", tokenizer]) == 0
    assert "not copied" not in capsys.readouterr().err
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == OLD + 8
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    assert main(["extend-vocab", str(llama), "out", "--tokenizer", "empty"]) == 2
    error = capsys.readouterr().err
    assert error == "error: tokenizer empty: holds no tokenizer.json and no tokenizer.model\n"
    assert main(["extend-vocab", str(llama), "out", "--tokenizer", tokenizer, "--divisible-by", "1000000000"]) == 2
    assert "expected at most 65,536 rows without a token" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_written_over_and_nothing_is_left_of_a_full_disk(llama, tmp_path, monkeypatch):
    tokenizer, out = str(with_extra_ids(llama, tmp_path / "tokenizer")), tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        extend_vocabulary(llama, out, tokenizer)
    out.rmdir()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(extending_module, "copy_weights", full)
    with pytest.raises(CheckpointError, match="out: cannot be written: No space left on device"):
        extend_vocabulary(llama, out, tokenizer)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_kill_leaves_no_directory_and_the_next_try_works(llama, tmp_path):
    tokenizer, out = str(with_extra_ids(llama, tmp_path / "tokenizer")), tmp_path / "out"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from neva_model.checkpoints.extending import extend\n"
        "copy = extend._copy_others\n"
        "def killed(*arguments):\n"
        "    copy(*arguments)\n"
        "    os.kill(os.getpid(), 9)\n"
        "extend._copy_others = killed\n"
        "extend.extend_vocabulary(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, llama, out, tokenizer], capture_output=True)
    assert done.returncode == -9 and not out.exists()
    extend_vocabulary(llama, out, tokenizer)
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == OLD + 8
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("has_own", [False, True])
def test_further_chat_templates_go_with_the_tokenizer(has_own, llama, tmp_path, capsys):
    """Those of the tokenizer that comes, or else those of the one before; also through the tools for tokenizers."""
    old = AutoTokenizer.from_pretrained(llama)
    old.chat_template = {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}
    old.save_pretrained(llama)
    new = with_extra_ids(llama, tmp_path / "tokenizer")
    assert AutoTokenizer.from_pretrained(new).chat_template == old.chat_template
    shutil.rmtree(new / "additional_chat_templates")
    expected = old.chat_template
    if has_own:
        expected = {"default": "{{ 1 }}", "rag": "{{ 3 }}"}
        (new / "additional_chat_templates").mkdir()
        (new / "additional_chat_templates" / "rag.jinja").write_text("{{ 3 }}")
    capsys.readouterr()
    assert main(["extend-vocab", str(llama), str(tmp_path / "out"), "--tokenizer", str(new)]) == 0
    assert "not copied" not in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == expected
