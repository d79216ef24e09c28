"""`nemo-run extend-vocab` on checkpoints, against what it makes of the Hugging Face directories they came from."""

import json
import os
import resource
import signal
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from neva_model.checkpoints.converting.convert import convert
from neva_model.checkpoints.extending.checkpoint import extend_checkpoint
from neva_model.checkpoints.extending.extend import extend_vocabulary
from neva_model.checkpoints.information import read_information, saved_recipe
from neva_model.checkpoints.load import load_model
from neva_model.checkpoints.resharding.reshard import reshard
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.storage.checkpoints import what_is_wrong
from neva_recipes.storage.tensors import checkpoint_tensors
from neva_recipes.tokenizers import add_tokens
from tests.converting.test_bad_input import recorded, shard_changed
from tests.extending.test_extend_vocab import OLD, SIZES, byte_level, llama, weights, with_extra_ids
from tests.one_process import one_process

__all__ = ["llama", "one_process"]

GROUPS = {"num_key_value_heads": 4, "tie_word_embeddings": True}
EMBEDDING = "language.embedding.word_embeddings.weight"


@pytest.fixture
def checkpoint(llama, tmp_path):
    """A checkpoint of the llama."""
    convert(llama, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def tokenizer(llama, tmp_path):
    """The llama's tokenizer with eight tokens more."""
    return str(with_extra_ids(llama, tmp_path / "tokenizer"))


def assert_same_tensors(checkpoint, directory, folder):
    convert(checkpoint, folder)
    ours, theirs = weights(folder), weights(directory)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("flags", [[], ["--init=mean", "--rows=400"], ["--init=zero", "--divisible-by=64"]])
def test_the_rows_are_those_of_the_directory(flags, llama, checkpoint, tokenizer, tmp_path, capsys):
    capsys.readouterr()
    for source, out in ((llama, "directory"), (checkpoint, "out")):
        assert main(["extend-vocab", str(source), str(tmp_path / out), "--tokenizer", tokenizer, *flags]) == 0
    rows = {"": OLD + 8, "--init=mean": 400, "--init=zero": 384}["".join(flags[:1])]
    lines = capsys.readouterr().out.splitlines()
    assert (
        f"wrote {tmp_path / 'out'}: 8 new tokens, {rows} rows, {OLD} before, padded to {-(-rows // 128) * 128}" in lines
    )
    assert what_is_wrong(tmp_path / "out", with_shards=True) is None
    assert_same_tensors(tmp_path / "out", tmp_path / "directory", tmp_path / "back")
    assert (tmp_path / "out" / "huggingface" / "LICENSE").read_text() == "mine"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "back").config.vocab_size == rows


def test_shared_matrices_and_rows_to_spare(tmp_path):
    source, new, out = tmp_path / "source", tmp_path / "new", tmp_path / "out"
    rows = len(byte_level(source, 280).get_vocab())
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, **GROUPS, vocab_size=rows + 20))
    model.save_pretrained(source)
    byte_level(new, 290)
    convert(source, tmp_path / "checkpoint")
    done = extend_checkpoint(tmp_path / "checkpoint", out, str(new))
    assert (done.rows, done.rows_before, done.matrices) == (rows + 20, rows + 20, (EMBEDDING,))
    extend_vocabulary(source, tmp_path / "directory", str(new))
    assert_same_tensors(out, tmp_path / "directory", tmp_path / "back")


def test_the_layout_stays_and_pads_the_rows(checkpoint, tokenizer, tmp_path):
    """NeMo's count of new rows: ceil(N / X) * X - O, X = make_vocab_size_divisible_by times tensor-parallel ranks."""
    recipe = checkpoint / "recipe.yaml"
    recipe.write_text(
        recipe.read_text().replace("make_vocab_size_divisible_by: 128", "make_vocab_size_divisible_by: 12")
    )
    recorded(checkpoint)
    reshard(checkpoint, tmp_path / "cut", 2, 2)
    before = checkpoint_tensors(tmp_path / "cut")[EMBEDDING].shape[0]
    extend_checkpoint(tmp_path / "cut", tmp_path / "out", tokenizer)
    stored = checkpoint_tensors(tmp_path / "out")[EMBEDDING]
    assert (before, stored.shape[0]) == (336, 360) and stored.shape[0] - before == -(-(OLD + 8) // 24) * 24 - before
    assert {piece.file.split("_")[2] for piece in stored.pieces} == {"0", "1"}
    information = read_information(tmp_path / "out")
    assert (information.tensor_model_parallel_size, information.pipeline_model_parallel_size) == (2, 2)


def test_it_is_loaded_started_from_and_resharded(checkpoint, tokenizer, tmp_path, capsys):
    out = tmp_path / "out"
    extend_checkpoint(checkpoint, out, tokenizer)
    recipe, information = saved_recipe(out), read_information(out)
    assert (recipe.model.language.vocab_size, recipe.data.tokenizer) == (OLD + 8, str(out / "huggingface"))
    assert information.vocabulary_digest == read_tokenizer(tmp_path / "tokenizer").vocabulary_digest
    before, after = load_model(checkpoint), load_model(out)
    assert after.words.vocab_size == OLD + 8
    ids = torch.randint(3, OLD, (1, 20), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(20)[None]
    with torch.no_grad():
        old, new = before.model(ids, positions, None), after.model(ids, positions, None)
    assert torch.equal(new[..., :OLD], old[..., :OLD])
    reshard(out, tmp_path / "cut", 2, 1)
    assert saved_recipe(tmp_path / "cut").data.tokenizer == str(tmp_path / "cut" / "huggingface")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "a leaf"}) + "\n")
    words = [f"data.data_path={tmp_path / 'text.jsonl'}", f"data.tokenizer={tokenizer}", "--dry-run"]
    start = [f"model.language={out / 'huggingface'}", f"model.language.from_pretrained={out}"]
    capsys.readouterr()
    assert main(["gpt.pretrain", "size=tiny", *start, *words]) == 0, capsys.readouterr().err
    assert main(["generate", str(out), "--prompt", "a leaf", "--max-new-tokens=4"]) == 0


def test_one_line_says_why_not(llama, checkpoint, tokenizer, tmp_path, capsys):
    def refused(tokenizer=tokenizer):
        capsys.readouterr()
        assert main(["extend-vocab", str(checkpoint), str(tmp_path / "out"), "--tokenizer", tokenizer]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
        return error

    assert "nothing to extend" in refused(str(llama))
    add_tokens(str(llama), tmp_path / "gone", ["<a>"])
    config = tmp_path / "gone" / "tokenizer.model"
    config.write_bytes((llama / "tokenizer.model").read_bytes()[:-40])
    assert "tokenizer" in refused(str(tmp_path / "gone"))
    recipe, text = checkpoint / "recipe.yaml", (checkpoint / "recipe.yaml").read_text()
    recipe.write_text(text.replace(f"tokenizer: {checkpoint / 'huggingface'}", "tokenizer: /nowhere"))
    recorded(checkpoint)
    assert "does not exist" in refused() and "data.tokenizer of" in refused()
    recipe.write_text(text.replace(f"tokenizer: {checkpoint / 'huggingface'}", f"tokenizer: {tokenizer}"))
    recorded(checkpoint)
    assert "was trained with another vocabulary" in refused()
    recipe.write_text(text.replace("use_im_start_end: false", "use_im_start_end: true"))
    recorded(checkpoint)
    assert "the tokens around its images (model.use_im_start_end)" in refused()
    recipe.write_text(text)
    recorded(checkpoint)
    shard_changed(checkpoint)
    assert "__0_0.distcp: is damaged" in refused()


def test_nothing_is_left_of_a_full_disk_and_what_exists_stays(checkpoint, tokenizer, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        extend_checkpoint(checkpoint, out, tokenizer)
    out.rmdir()
    before = sorted(tmp_path.iterdir())
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.stderr = (tmp_path / "told").open("w")
        code = main(["extend-vocab", str(checkpoint), str(out), "--tokenizer", tokenizer])
        sys.stderr.flush()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert (tmp_path / "told").read_text() == f"error: {out}: cannot be written: File too large\n"
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "told"])
    with pytest.raises(DataError, match="does not exist"):
        extend_checkpoint(checkpoint, out, str(tmp_path / "nothing"))
