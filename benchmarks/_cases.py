"""The training configurations that are measured, and what is read out of their run directories."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fiddle as fdl
from _samples import Samples

from neva_recipes import llava
from neva_recipes.config import Draft, LanguageConfig, Recipe, set_field

__all__ = ["FULL", "TINY", "Case", "Scale", "case_recipe", "layers_that_fit", "loss_difference", "measure", "parts"]

Stage = Literal["pretrain", "finetune"]

_VISION_PARAMETERS = 303_505_408
_PROJECTOR_PARAMETERS = 20_979_712
_FIXED_BYTES = 4 * 2**30
_OVERHEAD = 1.06
_USABLE = 0.9
"""Share of the memory that the estimate may fill: no GPU has calibrated it yet."""


@dataclass(frozen=True)
class Case:
    """One training configuration.

    Attributes:
        stage: Which recipe.
        fp8: FP8 recipe of Transformer Engine; `None` means bf16 alone.
        recompute: Whether activations are recomputed, as the recipe has it.
    """

    stage: Stage
    fp8: Literal["delayed", "tensorwise", "blockwise"] | None = None
    recompute: bool = True

    @property
    def name(self) -> str:
        """Name in the report and of the run."""
        return f"{self.stage} {f'fp8 {self.fp8}' if self.fp8 else 'bf16'}{'' if self.recompute else ' no recompute'}"


@dataclass(frozen=True)
class Scale:
    """How large and how long everything is.

    Attributes:
        size: Size of the recipes.
        steps: Optimizer steps of each training case.
        warm_up: First steps that are left out of the speed: compilers and caches are at work.
        micro_batch: Samples of a microbatch, by stage; it is also the global batch.
        lengths: Tokens of the samples of successive steps, image included, by stage; they repeat.
        matmul: Side of the matrices that are multiplied.
        digits_steps: Steps of the digits job, recipe by recipe.
        digits_questions: Questions of its evaluation; `None` means all.
        case_seconds: Time a training case may take.
    """

    size: Literal["7b", "tiny"]
    steps: int
    warm_up: int
    micro_batch: Mapping[Stage, int]
    lengths: Mapping[Stage, Sequence[int]]
    matmul: int
    digits_steps: Mapping[str, int]
    digits_questions: int | None
    case_seconds: float

    @property
    def tokens_per_image(self) -> int:
        """Positions an image takes."""
        return 576 if self.size == "7b" else 16

    def sample_lengths(self, stage: Stage) -> list[int]:
        """Return the length of every sample of a stage, in the order of the file."""
        pattern = self.lengths[stage]
        return [pattern[step % len(pattern)] for step in range(self.steps) for _ in range(self.micro_batch[stage])]


FULL = Scale(
    size="7b",
    steps=50,
    warm_up=10,
    micro_batch={"pretrain": 8, "finetune": 4},
    lengths={"pretrain": (608,), "finetune": (1008, 1264, 1008, 2032)},
    matmul=8192,
    digits_steps={"gpt.pretrain": 150, "llava.pretrain": 300, "llava.finetune": 500},
    digits_questions=None,
    case_seconds=180.0,
)
"""A 7B model at LLaVA's sequence lengths, cut to the memory of the GPU."""

TINY = Scale(
    size="tiny",
    steps=4,
    warm_up=1,
    micro_batch={"pretrain": 2, "finetune": 2},
    lengths={"pretrain": (48,), "finetune": (128, 160)},
    matmul=256,
    digits_steps={"gpt.pretrain": 2, "llava.pretrain": 2, "llava.finetune": 2},
    digits_questions=6,
    case_seconds=600.0,
)
"""The same things at a size any machine does."""


def parts(*, with_fp8: bool) -> list[Case | Literal["digits"]]:
    """Return the training cases and the digits job in the order of their importance."""
    fp8: tuple[Literal["tensorwise", "delayed", "blockwise"], ...] = ("tensorwise", "delayed", "blockwise")
    return [
        Case("finetune"),
        *(Case("finetune", recipe) for recipe in fp8 if with_fp8),
        Case("pretrain"),
        "digits",
        *(Case("pretrain", recipe) for recipe in fp8 if with_fp8),
        Case("finetune", recompute=False),
    ]


def case_recipe(case: Case, scale: Scale, samples: Samples, num_layers: int) -> Draft[Recipe]:
    """Return the recipe of a case: the built-in one with random weights, one GPU, made-up data and no checkpoints."""
    recipe = llava.finetune(scale.size) if case.stage == "finetune" else llava.pretrain(scale.size)
    batch = scale.micro_batch[case.stage]
    fields: dict[str, object] = {
        "model.language.num_layers": num_layers,
        "model.language.from_pretrained": "random",
        "model.vision.from_pretrained": "random",
        "data.data_path": samples.finetune if case.stage == "finetune" else samples.pretrain,
        "data.image_folder": samples.images,
        "data.tokenizer": samples.tokenizer,
        "data.micro_batch_size": batch,
        "data.global_batch_size": batch,
        "data.group_by_modality_length": "false",
        "data.dataloader_type": "single",
        "precision.precision": "bf16",
        "trainer.devices": 1,
        "trainer.max_steps": scale.steps,
        "trainer.log_every_n_steps": 1,
        "checkpoint.every_n_train_steps": "none",
        "checkpoint.save_top_k": 0,
        "checkpoint.save_last": "false",
    }
    if scale.size == "tiny":
        fields["model.language.vocab_size"] = samples.vocab_size
    if case.fp8:
        fields |= {"precision.fp8": "hybrid", "precision.fp8_recipe": case.fp8}
    if not case.recompute:
        for field in ("granularity", "method", "num_layers"):
            fields[f"model.recompute_{field}"] = "none"
    for field, value in fields.items():
        set_field(recipe, field, str(value))
    return recipe


def layers_that_fit(case: Case, scale: Scale, memory_bytes: float, *, fp8: bool) -> int:
    """Return how many layers of the language model fit into a GPU's memory, by arithmetic.

    A trained parameter takes 18 bytes (weight, fp32 gradient, fp32 master weight and two moments), a frozen one 2, and
    an FP8 copy of a weight 2 more.

    Args:
        case: What is trained.
        scale: Lengths and batch.
        memory_bytes: Memory of the GPU.
        fp8: Whether FP8 copies must find room, so that bf16 and FP8 can be compared at the same size.

    Raises:
        ValueError: Not one layer fits.
    """
    language = fdl.build(llava.finetune(scale.size).model.language)
    for layers in range(language.num_layers, 0, -1):
        needed = _bytes_needed(language, layers, case, scale, fp8=fp8)
        if needed * _OVERHEAD + _FIXED_BYTES <= _USABLE * memory_bytes:
            return layers
    raise ValueError(f"{memory_bytes / 2**30:.0f} GiB of memory are too little for one layer")


def _bytes_needed(language: LanguageConfig, layers: int, case: Case, scale: Scale, *, fp8: bool) -> float:
    hidden, ffn, heads = language.hidden_size, language.ffn_hidden_size, language.num_attention_heads
    products = 4 * hidden**2 + 3 * hidden * ffn
    parameters = layers * (products + 2 * hidden) + hidden + 2 * hidden * language.vocab_size
    trained = case.stage == "finetune"
    state = (18 if trained else 2) * parameters + 18 * _PROJECTOR_PARAMETERS + 2 * _VISION_PARAMETERS
    copies = 2 * layers * products if fp8 else 0
    kept = (16 * hidden + 6 * ffn if trained else 12 * hidden + 4 * ffn) + 4 * heads
    per_token = (layers * 2 * hidden + kept if case.recompute else layers * kept) + 8 * language.vocab_size
    tokens = scale.micro_batch[case.stage] * max(scale.lengths[case.stage])
    return state + copies + per_token * tokens


def measure(run: Path, warm_up: int) -> dict[str, Any]:
    """Return what metrics.csv of a run says: loss of every step, and the speed after the warm-up.

    Figures that the worker logs on GPUs only are `None` elsewhere.
    """
    with (run / "metrics" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
            if row["reduced_train_loss"]
        ]
    timed = rows[warm_up:]
    seconds = sum(row["step_time"] for row in timed)

    def rate(column: str) -> float | None:
        known = all(column in row for row in timed)
        return sum(row[column] * row["step_time"] for row in timed) / seconds if timed and known else None

    peaks = [row["peak_memory_gib"] for row in rows if "peak_memory_gib" in row]
    return {
        "steps": len(rows),
        "timed_steps": len(timed),
        "tokens_per_second": rate("tokens_per_second"),
        "tflops_per_gpu": rate("tflops_per_gpu"),
        "peak_memory_gib": max(peaks) if peaks else None,
        "loss": [row["reduced_train_loss"] for row in rows],
        "grad_norm": [row["grad_norm"] for row in rows],
        "step_seconds": [row["step_time"] for row in rows],
    }


def loss_difference(losses: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Return the largest and the mean absolute difference of two loss curves, and the mean one in percent."""
    differences = [abs(loss - other) for loss, other in zip(losses, reference, strict=True)]
    mean = math.fsum(differences) / len(differences)
    return {
        "largest": max(differences),
        "mean": mean,
        "mean_percent": 100 * mean / (math.fsum(map(abs, reference)) / len(reference)),
    }
