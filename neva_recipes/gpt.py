"""Language models on plain text: from the start, from weights that are there, or in another language."""

from pathlib import Path
from typing import Any, Literal, get_args

from neva_recipes import parts
from neva_recipes._assembly import (
    assemble,
    check_size,
    rates_of,
    recompute_every_layer,
    scale_to_laptop,
    split_over_node,
)
from neva_recipes.config import (
    Draft,
    LanguageConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    RecipeError,
    TextDataConfig,
    build,
    config,
    expand_path,
    listed_paths,
    path_is,
)
from neva_recipes.families.published import LLAMA_2
from neva_recipes.pipeline import (
    Export,
    ExtendVocabulary,
    Flow,
    Generate,
    LocalizationReport,
    MergeTokenizers,
    Pipeline,
    Stage,
    TokenizeText,
    TrainTokenizer,
)

__all__ = ["continue_pretrain", "localize", "pretrain"]

_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")

_ROWS = 128
"""What the rows of an extended model are a multiple of, as Megatron pads them (make_vocab_size_divisible_by)."""


def pretrain(size: parts.LlamaSize = "7b") -> Draft[Recipe]:
    """Train a Llama on plain text from random weights.

    data.data_path and data.tokenizer must be set. 7b and 13b have Llama 2's vocabulary: for a tokenizer of another
    size set model.language.vocab_size too. With tiny it becomes that of the tokenizer unless it is set.

    7b and 13b follow the Llama 2 paper (arXiv 2307.09288, section 2.2): 4 million tokens a step in sequences of 4096,
    500,000 steps, 2000 of them warm-up, learning rate 3e-4 falling to a tenth on a cosine, AdamW with betas 0.9 and
    0.95, eps 1e-5, weight decay 0.1, gradients clipped at 1. They are laid out for one machine of 8 GPUs of 80 GB, to
    be multiplied with trainer.num_nodes: each language model is split over 2 (7b) or 4 (13b) GPUs, where it takes
    28 or 37 GiB with gradients and sharded optimizer state, and activations are recomputed.

    tiny trains 100 steps on a laptop CPU, in fp32.

    Args:
        size: Size of the language model.
    """
    check_size("gpt.pretrain", size, get_args(parts.LlamaSize))
    recipe = _on_text("gpt.pretrain", size)
    recipe.data.global_batch_size = 1024
    recipe.optim.min_lr = 3e-5
    recipe.optim.warmup_steps = 2000
    recipe.optim.warmup_ratio = None
    recipe.optim.adam_eps = 1e-5
    recipe.trainer.max_steps = 500_000
    if size == "tiny":
        recipe.optim.warmup_steps = 10
        scale_to_laptop(recipe, lr=rates_of("gpt.pretrain").tiny, max_steps=100)
    return recipe


def continue_pretrain(size: parts.LlamaSize = "7b") -> Draft[Recipe]:
    """Go on training a language model on more text.

    data.data_path must be set, and model.language=DIR takes a model of any family in place of Llama 2. Text of what
    the model knows already belongs among the new one, lest it forget: the paper below replays a twentieth, or a quarter
    where the new text is far from the old, as another language is. With validation files of both, each has a
    val_loss and a val_perplexity of its own, from before the first step on, so that forgetting shows as it happens.

    The learning rate follows Ibrahim et al. 2024 (arXiv 2403.08763): warmed up again over the first hundredth of the
    steps, to the peak of their 10B model, 1.2e-4, then falling to a tenth of it on a cosine; AdamW with betas 0.9 and
    0.95, weight decay 0.1, gradients clipped at 1. 2 million tokens a step are about their 2.3, in sequences of the
    4096 positions of Llama 2. The run is one pass through the data. The layout is that of gpt.pretrain.

    tiny trains 100 steps on a laptop CPU, in fp32, and needs a model.language.from_pretrained, such as a run of
    gpt.pretrain.

    Args:
        size: Size of the language model.
    """
    check_size("gpt.continue_pretrain", size, get_args(parts.LlamaSize))
    recipe = _on_text("gpt.continue_pretrain", size)
    recipe.data.global_batch_size = 512
    recipe.optim.min_lr = 1.2e-5
    recipe.optim.warmup_ratio = 0.01
    recipe.trainer.max_steps = None
    recipe.trainer.max_epochs = 1
    recipe.trainer.val_before_training = True
    if size == "tiny":
        scale_to_laptop(recipe, lr=rates_of("gpt.continue_pretrain").tiny, max_steps=100)
        recipe.trainer.max_epochs = None
    else:
        recipe.model.language.from_pretrained = LLAMA_2[size]
    return recipe


def localize(
    model: str,
    new_text: str,
    old_text: str,
    vocab_size: int = 8000,
    old_share: float = 0.25,
    prompts: str | None = None,
    tokenizer: str | None = None,
) -> Pipeline:
    """Teach a language model another language.

    A tokenizer is trained on the new text and merged behind that of the model, which gets rows for the new tokens, goes
    on training on both texts as in gpt.continue_pretrain, and is exported. A table at the end has the tokens of a word
    and the perplexities before and after. The old text keeps the model from forgetting, in the share of that paper.

    Args:
        model: Hugging Face directory of the language model, with its tokenizer.
        new_text: Text of the new language: lines or JSONL.
        old_text: Text of what the model knows.
        vocab_size: Tokens of the new language's tokenizer, at most as many new ones for the model.
        old_share: Share of the old text in training.
        prompts: A file of prompts, one a line, that the model continues before and after; none by default.
        tokenizer: SentencePiece file, or directory, of the model's tokenizer; `None` means that of its directory.
    """
    if not 0 < old_share < 1:
        raise RecipeError(f"old_share={old_share:g}: expected a share between 0 and 1")
    _require_lines(new_text=new_text, old_text=old_text)
    base = _base_of(model, tokenizer, has_prompts=prompts is not None)
    language = parts.from_huggingface(model)
    rows = -(-(build(language).vocab_size + vocab_size) // _ROWS) * _ROWS
    words = Stage("words", config(TrainTokenizer, files=new_text, vocab_size=vocab_size, kind=_kind_of(base)))
    merge = Stage("merge", config(MergeTokenizers, base=base, new=words.output))
    extend = Stage("extend", config(ExtendVocabulary, model=model, tokenizer=merge.output, rows=rows))
    new = Stage("new", config(TokenizeText, files=new_text, tokenizer=merge.output))
    old = Stage("old", config(TokenizeText, files=old_text, tokenizer=merge.output))
    language.vocab_size = rows
    train = Stage("train", _on_both(language, [new, old], merge, old_share))
    train.work.model.language.from_pretrained = extend.output
    report = config(
        LocalizationReport,
        tokenizer_before=base,
        tokenizer_after=merge.output,
        new_text=new_text,
        old_text=old_text,
        run=train.output,
    )
    after = _compared(model, train, report, prompts)
    return Pipeline("localize", words >> merge >> [extend, new, old] >> train >> after)


def _require_lines(**texts: str) -> None:
    """Raise `RecipeError` for a text that only `nemo-run data text` reads: the other stages read lines or JSONL."""
    for parameter, value in texts.items():
        for path in map(expand_path, listed_paths(value)):
            if path_is(path, Path.is_dir) or ".parquet" in path.suffixes:
                raise RecipeError(f"{parameter}={path}: expected files of lines or JSONL, as all stages read them")


def _base_of(model: str, tokenizer: str | None, *, has_prompts: bool) -> str:
    """Return where the tokenizer is that a model has.

    Raises:
        RecipeError: Something is not there.
    """
    if not path_is(expand_path(model) / "config.json"):
        raise RecipeError(f"model={model}: no config.json there: expected the Hugging Face directory of a model")
    if tokenizer is None:
        _require_tokenizer("model", model, "set tokenizer to that of the model")
        return model
    _require_tokenizer("tokenizer", tokenizer, "set it to that of the model")
    if has_prompts:
        _require_tokenizer("model", model, "put it there, for the model continues the prompts as it was, too")
    return tokenizer


def _require_tokenizer(field: str, value: str, remedy: str) -> None:
    path = expand_path(value)
    if not path_is(path, Path.is_file) and not any(path_is(path / name) for name in _TOKENIZER_FILES):
        expected = f"no tokenizer there: expected {' or '.join(_TOKENIZER_FILES)}"
        raise RecipeError(f"{field}={value}: {expected}; {remedy}")


def _kind_of(tokenizer: str) -> Literal["sentencepiece", "byte-level"]:
    """Return the kind of a model's tokenizer, which is a SentencePiece file, or a directory with or without one."""
    path = expand_path(tokenizer)
    return "sentencepiece" if path_is(path, Path.is_file) or path_is(path / "tokenizer.model") else "byte-level"


def _compared(model: str, train: Stage, report: Draft[LocalizationReport], prompts: str | None) -> Flow:
    """Return the stages after the training: the export, what both models write after prompts, and the table."""
    export = Stage("export", config(Export, model=train.output))
    if prompts is None:
        return export >> Stage("report", report)
    before = Stage("before", config(Generate, model=model, prompts=prompts))
    after = Stage("after", config(Generate, model=export.output, prompts=prompts))
    report.written_before, report.written_after = before.output, after.output
    return export >> before >> after >> Stage("report", report)


def _on_both(language: Draft[LanguageConfig], texts: list[Stage], merge: Stage, old_share: float) -> Draft[Recipe]:
    """Return the recipe that trains a model on the new text and the old one."""
    from neva_recipes.plan.cost.parameters import is_small  # a list of recipes needs no plan

    recipe = continue_pretrain()
    recipe.model.language = language
    if is_small(build(recipe)):
        recipe = continue_pretrain("tiny")
        recipe.model.language = language
    recipe.name = "gpt.localize"
    data: Any = recipe.data
    data.sequence_length = min(data.sequence_length, build(language).max_position_embeddings)
    data.tokenizer = merge.output
    data.data_path = [text.output / "train.idx" for text in texts]
    data.validation_data_path = [text.output / "validation.idx" for text in texts]
    data.blend = [1 - old_share, old_share]
    return recipe


def _on_text(name: str, size: parts.LlamaSize) -> Draft[Recipe]:
    """Return what both recipes have in common; for tiny the laptop scale is still to come."""
    recipe = assemble(
        Recipe,
        name,
        config(ModelConfig, language=parts.llama(size)),
        config(TextDataConfig, sequence_length=4096),
        config(OptimConfig, lr=rates_of(name).published, weight_decay=0.1, adam_beta2=0.95),
        max_steps=1,
    )
    if size != "tiny":
        recompute_every_layer(recipe)
        split_over_node(recipe, tensor_model_parallel_size=2 if size == "7b" else 4, micro_batch_size=4)
    return recipe
