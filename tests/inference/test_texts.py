"""`nemo-run generate`: continuations of texts, against transformers."""

import json
import resource
import shlex
import signal
import subprocess
import sys

import pytest
import torch
from transformers import LlamaTokenizer

from neva_model.checkpoints.load import divided as divided_recipe
from neva_model.inference.continuing import continue_texts, prompt_tokens
from neva_model.inference.generate import complete, generate
from neva_model.inference.opening import open_model
from neva_model.inference.options import Sampling
from neva_model.inference.texts import main
from neva_recipes.config import ParallelConfig, RecipeError, UserError
from tests.inference.tiny_models import save_directory, save_run
from tests.model.model_cases import hf_language, text_recipe
from tests.sentencepiece_models import train_words

TEXTS = [
    "A chat between a curious user",
    "USER: What is in the picture? ASSISTANT: a red square on a white ground. USER: Is the digit odd or even?",
    "odd",
    "Which digit is this? seven, zero,",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. " * 3,
]


@torch.no_grad()
def oracle(model, tokens, new_tokens, eos=None):
    """What transformers writes after a prompt alone, without the token that ends it."""
    generated = model.generate(
        input_ids=torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
    )[0, len(tokens) :].tolist()
    return generated[:-1] if eos is not None and generated[-1] == eos else generated


def run(*arguments):
    assert main([*map(str, arguments)]) == 0


def test_rows_of_unequal_lengths_are_those_of_each_prompt_alone(llama, llama_oracle):
    generator = torch.Generator().manual_seed(4)
    lengths = [3, 19, 7, 1, 40]
    rows = torch.randint(3, 300, (len(lengths), max(lengths)), generator=generator)
    steps = generate(llama.model, rows, sampling=Sampling(max_new_tokens=25), stop_token_ids=(), lengths=lengths)
    expected = [oracle(llama_oracle, row[:length].tolist(), 25) for row, length in zip(rows, lengths, strict=True)]
    assert complete(steps, ()) == expected


def test_texts_come_in_their_order_however_they_are_batched(llama, llama_oracle):
    prompts = [prompt_tokens(llama.tokenizer, text) for text in TEXTS * 4]
    end = llama.tokenizer.eos_id
    expected = [oracle(llama_oracle, prompt, 3, end) for prompt in prompts[: len(TEXTS)]] * 4
    for size in (1, 3, 32):
        found = list(continue_texts(llama, prompts, sampling=Sampling(max_new_tokens=3), batch_size=size))
        assert [one.tokens for one in found] == expected
        assert [one.is_complete for one in found] == [len(tokens) < 3 for tokens in expected]
    assert 0 < sum(one.is_complete for one in found) < len(found), "both kinds must be among them"


def test_a_result_waits_for_none_but_those_before_it(llama, monkeypatch):
    prompts = [prompt_tokens(llama.tokenizer, "odd " * words) for words in (1, 2, 3, 4)]
    begun = []

    def counted(*arguments, **options):
        begun.append(1)
        return generate(*arguments, **options)

    monkeypatch.setattr("neva_model.inference.continuing.generate", counted)
    results = continue_texts(llama, prompts, sampling=Sampling(max_new_tokens=2), batch_size=1)
    next(results)
    assert len(begun) == 1


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("sink", "code", "told"),
    [
        ("| head -c 1", 141, ""),
        ("> /dev/full", 2, "error: standard output cannot be written: No space left on device\n"),
    ],
)
def test_a_reader_that_goes_away_ends_all_ranks_without_a_word(sink, code, told, llama_directory):
    words = [sys.executable, "-m", "neva_recipes", "generate", str(llama_directory), "--prompt=odd", "--tp=2"]
    line = f"{shlex.join(words)} --max-new-tokens=200 {sink}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, told)


def test_the_begin_token_is_that_of_the_tokenizer_unless_it_is_asked_for(llama, tokenizers_by_kind):
    words, begin = llama.tokenizer, llama.tokenizer.bos_id
    assert prompt_tokens(words, "odd") == words.hf("odd")["input_ids"]
    assert prompt_tokens(words, "odd", add_bos=True)[0] == begin
    assert prompt_tokens(words, "odd", add_bos=False) == prompt_tokens(words, "odd", add_bos=True)[1:]
    other = tokenizers_by_kind["byte level"]
    assert prompt_tokens(other, "odd") == other.hf("odd")["input_ids"]


@pytest.fixture(scope="module")
def divided(llama_of_four_layers, tokenizers_by_kind, tmp_path_factory):
    """Where a model lies, as a directory and as a run, and what transformers writes after each text."""
    words, folder = tokenizers_by_kind["sentencepiece"], tmp_path_factory.mktemp("divided")
    directory = save_directory(llama_of_four_layers, words, folder / "hf", with_images=False)
    opened = open_model(directory)
    source = save_run(opened.model, opened.recipe, folder / "run")
    expected = [oracle(llama_of_four_layers, prompt_tokens(words, text), 30, words.eos_id) for text in TEXTS]
    return {"directory": directory, "run": source}, expected


@pytest.mark.multiprocess
@pytest.mark.parametrize(("kind", "layout"), [("directory", ("--pp=2",)), ("run", ("--tp=2", "--pp=2"))])
def test_a_divided_model_writes_what_the_whole_one_does(kind, layout, divided, tmp_path):
    sources, expected = divided
    run_directory = sources[kind]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    output = tmp_path / "out" / "texts.jsonl"
    run(run_directory, f"--prompts={prompts}", f"--output={output}", "--max-new-tokens=30", "--greedy", *layout)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["prompt"] for line in lines] == TEXTS
    assert [line["tokens"] for line in lines] == expected


def test_one_prompt_is_printed_as_text(llama_directory, llama, llama_oracle, capsys):
    run(llama_directory, "--prompt=Which digit is this?", "--max-new-tokens=20", "--add-bos")
    tokens = prompt_tokens(llama.tokenizer, "Which digit is this?", add_bos=True)
    answer = oracle(llama_oracle, tokens, 20, llama.tokenizer.eos_id)
    whole = llama.tokenizer.decode([*tokens, *answer])
    assert capsys.readouterr().out == whole.removeprefix("Which digit is this?") + "\n"


def test_a_tokenizer_without_the_tokens_of_a_chat_continues_texts(tmp_path, capsys):
    model = hf_language(text_recipe({"model.language.family": "qwen2", "model.language.vocab_size": 421}))
    model.save_pretrained(tmp_path / "base")
    train_words(tmp_path / "base" / "tokenizer.model", ["what is", "the digit ?", "odd or even"])
    tokens = LlamaTokenizer.from_pretrained(tmp_path / "base", legacy=True)("what is")["input_ids"]
    run(tmp_path / "base", "--prompt=what is", "--prompt=what is", "--max-new-tokens=5")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["tokens"] == oracle(model, tokens, 5, 2) and lines[1] == lines[0]


def test_one_prompt_of_a_file_is_json(llama_directory, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("odd\n")
    run(llama_directory, f"--prompts={tmp_path / 'one.txt'}", "--max-new-tokens=2")
    assert json.loads(capsys.readouterr().out)["prompt"] == "odd"


def test_a_run_begins_texts_as_its_training_did(llama_run, monkeypatch):
    """With its begin token, also where the tokenizer by itself adds none."""
    from neva_model.inference import continuing

    asked = []
    monkeypatch.setattr(
        continuing, "prompt_tokens", lambda words, text, *, add_bos: asked.append(add_bos) or [words.bos_id]
    )
    run(llama_run, "--prompt=odd", "--max-new-tokens=2")
    assert asked == [True]


def test_draws_repeat_under_a_seed(llama_directory, capsys):
    flags = ["--prompt=odd", "--prompt=even", "--max-new-tokens=15", "--temperature=1.5"]
    drawn = []
    for seed in (1, 1, 2):
        run(llama_directory, *flags, f"--seed={seed}")
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({json.loads(line)["text"] for line in drawn[0].splitlines()}) == 2


def test_draws_depend_on_the_seed_and_the_number_of_a_prompt_alone(llama):
    prompts = [prompt_tokens(llama.tokenizer, text) for text in TEXTS * 2]

    def drawn(batch_size, seed=3, prompts=prompts):
        sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.9, seed=seed)
        return [one.tokens for one in continue_texts(llama, prompts, sampling=sampling, batch_size=batch_size)]

    expected = drawn(1)
    for size in (2, 3, 32):
        assert drawn(size) == expected
    assert all(one != other for one, other in zip(expected[: len(TEXTS)], expected[len(TEXTS) :], strict=True))
    # Other neighbours, which come into other batches.
    others = [prompt if number in (1, 4) else prompts[2] for number, prompt in enumerate(prompts)]
    changed = drawn(3, prompts=others)
    assert [changed[number] for number in (1, 4)] == [expected[number] for number in (1, 4)]
    # A seed and a number do not add up.
    same = [prompts[0]] * 3
    assert not {tuple(tokens) for tokens in drawn(2, 3, same)} & {tuple(tokens) for tokens in drawn(2, 4, same)}


def test_mistakes_take_one_line(llama_directory, tmp_path):
    empty, wrong = tmp_path / "empty.txt", tmp_path / "wrong.jsonl"
    empty.write_text("\n \n")
    wrong.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    long = tmp_path / "long.txt"
    long.write_text("short\n" + "odd or even? " * 200 + "\n")
    cases = [
        ([f"--prompts={empty}"], "holds no prompt"),
        ([f"--prompts={wrong}"], 'record 2 has no "prompt"'),
        ([f"--prompts={long}"], "prompt 2: .*limit is 384"),
        (["--prompt=a", "--greedy", "--temperature=0.5"], "leave one of them out"),
        (["--prompt=", "--no-add-bos"], "no text to continue"),
        (["--prompt=a", f"--output={empty}"], "exists already"),
    ]
    for flags, message in cases:
        with pytest.raises(UserError, match=message):
            main([str(llama_directory), *flags])


@pytest.mark.multiprocess
def test_a_mistake_that_every_rank_meets_is_told_once(llama_directory, capfd):
    assert main([str(llama_directory), "--prompt=odd or even? " + "odd " * 400, "--tp=2"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "limit is 384" in error


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"tensor_model_parallel_size": 3}, "--tp=3 --pp=1: 4 heads are not a multiple of 3 processes"),
        ({"pipeline_model_parallel_size": 2}, "--tp=1 --pp=2: 3 layers"),
    ],
)
def test_a_layout_that_does_not_divide_the_model_is_refused(layout, message, llama):
    with pytest.raises(RecipeError, match=message):
        divided_recipe(llama.recipe, ParallelConfig(**layout))


def test_what_was_continued_before_a_disk_is_full_is_kept(llama_directory, tmp_path, monkeypatch):
    from neva_model.inference import texts

    monkeypatch.setattr(texts, "_line", lambda prompt, result: "123456789")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    flags = [f"--prompt={text}" for text in TEXTS]
    output = tmp_path / "texts.jsonl"
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            main([str(llama_directory), *flags, f"--output={output}", "--max-new-tokens=2"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert str(caught.value) == f"{output}: cannot be written: File too large"
    assert output.read_text() == "123456789\n123456789\n12345"


def test_a_failure_of_the_model_is_none_of_the_output(llama_directory, tmp_path, monkeypatch):
    from neva_model.inference import continuing

    def fail(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(continuing, "generate", fail)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        main([str(llama_directory), "--prompt=a", f"--output={tmp_path / 'texts.jsonl'}"])
