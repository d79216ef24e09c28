"""The stages that give a model the words of another language: real tools in a real pipeline."""

import json

import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import executors
from executors import ExtendVocabulary, MergeTokenizers, Pipeline, Stage, TrainTokenizer
from executors.pipelines.again import pipeline_again
from neva_recipes import gpt
from neva_recipes.config import StageOutput, config
from tests.sentencepiece_models import train_sentencepiece

ENGLISH = ["a red square on a white ground", "which digit is this? seven, zero, five", "the answer is a leaf"]
GREEK = ["ένα κόκκινο τετράγωνο σε λευκό φόντο", "ποιο ψηφίο είναι αυτό; επτά, μηδέν, πέντε"]
OLD, ROWS = 330, 512


@pytest.fixture
def llama(tmp_path):
    folder = tmp_path / "llama"
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=OLD)).save_pretrained(folder)
    train_sentencepiece(folder / "tokenizer.model", ENGLISH * 20, OLD)
    (folder / "LICENSE.txt").write_text("\n".join(ENGLISH * 5))
    names = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "legacy": False}))
    return folder


def pipeline_of(llama, text):
    words = Stage("words", config(TrainTokenizer, files=[str(text)], vocab_size=320))
    merged = Stage("merged", config(MergeTokenizers, base=str(llama), new=words.output))
    extended = Stage("extended", config(ExtendVocabulary, model=str(llama), tokenizer=merged.output, rows=ROWS))
    # A list, and a file of what a stage has made: extend-vocab copies the model's licence.
    more = Stage("more", config(TrainTokenizer, files=[extended.output / "LICENSE.txt", str(text)], vocab_size=345))
    return Pipeline("words", words >> merged >> extended >> more)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_a_model_gets_the_words_of_another_language(llama, tmp_path, capsys):
    text = tmp_path / "greek.txt"
    text.write_text("\n".join(GREEK * 20), encoding="utf-8")
    run = executors.run_pipeline(pipeline_of(llama, text), executors.LocalExecutor(), tmp_path / "runs")
    printed = capsys.readouterr().out
    assert run.status().state == "succeeded", printed
    assert "Warning" not in printed
    stages = run.path / "stages"
    extended = stages / "extended" / "extended"
    old = sentencepiece.SentencePieceProcessor(str(llama / "tokenizer.model"))
    new = AutoTokenizer.from_pretrained(extended)
    assert len(new.encode(GREEK[0])) < len(old.encode(GREEK[0])) / 2
    assert new.encode(ENGLISH[0], add_special_tokens=False) == old.encode(ENGLISH[0])
    models = [LlamaForCausalLM.from_pretrained(folder).eval() for folder in (llama, extended)]
    assert models[1].config.vocab_size == ROWS
    ids = torch.tensor([old.encode(ENGLISH[1])])
    with torch.no_grad():
        before, after = (model(ids).logits for model in models)
    assert (after[..., :OLD] - before).abs().max() <= 1e-6
    files = [str(extended / "LICENSE.txt"), str(text)]
    assert json.loads((stages / "more" / "tool.json").read_text())["fields"]["files"] == files
    again = {stage.name: stage.work for stage in pipeline_again(run).stages}
    assert again["merged"].new == StageOutput("words")
    assert again["more"].files == [StageOutput("extended", "LICENSE.txt"), str(text)]
    tool = json.loads((stages / "merged" / "tool.json").read_text())
    assert tool["reads"] == [str(llama), str(stages / "words" / "tokenizer")] and tool["on_gpu"] is False


def test_what_is_missing_is_told_before_anything_starts(llama, tmp_path):
    job = executors.plan_pipeline(pipeline_of(llama, tmp_path / "nowhere.txt"), runs_dir=tmp_path / "runs")
    assert ["files" in finding.fields for finding in job.stages[0].not_here] == [True]
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_comes_along_from_a_run_whose_own_is_still_to_be_made(llama, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a red square\n" * 50)
    words = Stage("words", config(TrainTokenizer, files=[str(text)], vocab_size=320))
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path, recipe.data.tokenizer = str(text), words.output
    recipe.model.language.vocab_size = 320
    first = Stage("first", recipe)
    more = gpt.continue_pretrain("tiny")
    more.data.data_path, more.model.language.from_pretrained = str(text), first.output
    job = executors.plan_pipeline(Pipeline("p", words >> first >> Stage("more", more)), runs_dir=tmp_path / "runs")
    assert [(stage.problems, stage.not_here) for stage in job.stages] == [((), ())] * 3
