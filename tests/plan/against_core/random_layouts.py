"""Random small recipes, about half of them wrong, and whether the plan and Megatron-Core agree on them.

`python -m tests.plan.against_core.random_layouts --count 500 --seed 1` prints every disagreement and a summary.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from neva_recipes.config import Recipe
from neva_recipes.plan import check_recipe
from neva_recipes.plan.cost.sizes import devices_per_node
from tests.plan.against_core.core import Verdict, ask_core
from tests.plan.against_core.recipes import changed, image_recipe, text_recipe

__all__ = ["disagreement", "plan_errors", "random_layouts"]

_MOST_PROCESSES = 4
_MOST_LAYERS = 6

_Changes = dict[str, Any]


def random_layouts(seed: int, count: int) -> list[Recipe]:
    """Return random recipes on up to four processes: good ones, most of which a few fields are then changed in."""
    recipes: list[Recipe] = []
    generator = random.Random(seed)
    while len(recipes) < count:
        recipe = _good_recipe(generator)
        if generator.random() < 0.75:
            for _ in range(generator.choice((1, 2, 3))):
                recipe = changed(recipe, _wrong_field(generator, recipe))
        if recipe.trainer.num_nodes * devices_per_node(recipe) <= _MOST_PROCESSES:
            recipes.append(recipe)
    return recipes


def _good_recipe(generator: random.Random) -> Recipe:
    tensor, pipeline, context, data = generator.choice(
        [split for split in _splits() if split[0] * split[1] * split[2] * split[3] > 1 or generator.random() < 0.3]
    )
    changes: _Changes = {
        "parallel.tensor_model_parallel_size": tensor,
        "parallel.pipeline_model_parallel_size": pipeline,
        "parallel.context_parallel_size": context,
        "parallel.sequence_parallel": tensor > 1 and generator.random() < 0.5,
        "trainer.devices": tensor * pipeline * context * data,
        "data.sequence_length": generator.randrange(16, 40),
    }
    micro, microbatches = generator.choice((1, 1, 2, 3)), generator.choice((1, 2, 3, 4))
    pieces = [pieces for pieces in (2, 3) if pipeline > 1 and pieces * pipeline <= _MOST_LAYERS]
    virtual = generator.choice(pieces) if pieces and generator.random() < 0.5 else None
    if virtual is not None:
        changes["parallel.virtual_pipeline_model_parallel_size"] = virtual
        microbatches = pipeline * generator.choice((1, 2))
    changes |= {"data.micro_batch_size": micro, "data.global_batch_size": micro * microbatches * data}
    stages = _good_stages(generator, pipeline, virtual or 1)
    changes |= stages | _good_widths(generator, tensor, context)
    changes |= _good_recomputation(generator, min(_stage_sizes(stages, pipeline)) // (virtual or 1))
    distributed = generator.random() < 0.5
    overlap = generator.random() < 0.4
    changes |= {
        "parallel.use_distributed_optimizer": distributed,
        "parallel.overlap_grad_reduce": overlap,
        "parallel.overlap_param_gather": distributed and overlap and generator.random() < 0.6,
        "model.language.share_embeddings_and_output_weights": generator.random() < 0.3,
    }
    if generator.random() < 0.6:
        return text_recipe(changes)
    return image_recipe(changes | _good_tower(generator))


def _splits() -> list[tuple[int, int, int, int]]:
    sizes = range(1, _MOST_PROCESSES + 1)
    return [
        (tensor, pipeline, context, data)
        for tensor in sizes
        for pipeline in sizes
        for context in sizes
        for data in sizes
        if tensor * pipeline * context * data <= _MOST_PROCESSES
    ]


def _good_stages(generator: random.Random, pipeline: int, virtual: int) -> _Changes:
    while True:
        stages = _any_stages(generator, pipeline, virtual)
        if stages["model.language.num_layers"] <= _MOST_LAYERS:
            return stages


def _any_stages(generator: random.Random, pipeline: int, virtual: int) -> _Changes:
    per_stage = virtual * generator.choice((1, 2, 3))
    if pipeline == 1 or generator.random() < 0.6:
        return {"model.language.num_layers": per_stage * pipeline}
    first, last = virtual * generator.choice((1, 2)), virtual * generator.choice((1, 2))
    if generator.random() < 0.4:
        return {
            "model.language.num_layers": first + per_stage * (pipeline - 1),
            "parallel.num_layers_in_first_pipeline_stage": first,
        }
    if generator.random() < 0.5:
        return {
            "model.language.num_layers": last + per_stage * (pipeline - 1),
            "parallel.num_layers_in_last_pipeline_stage": last,
        }
    return {
        "model.language.num_layers": first + last + per_stage * (pipeline - 2),
        "parallel.num_layers_in_first_pipeline_stage": first,
        "parallel.num_layers_in_last_pipeline_stage": last,
    }


def _stage_sizes(stages: _Changes, pipeline: int) -> list[int]:
    first = stages.get("parallel.num_layers_in_first_pipeline_stage")
    last = stages.get("parallel.num_layers_in_last_pipeline_stage")
    ends = [size for size in (first, last) if size is not None]
    rest = stages["model.language.num_layers"] - sum(ends)
    return [*ends, *([rest // (pipeline - len(ends))] if pipeline > len(ends) else [])]


def _good_widths(generator: random.Random, tensor: int, context: int) -> _Changes:
    exchange = generator.choice(("p2p", "all_gather", "a2a")) if context > 1 else "p2p"
    groups = tensor * generator.choice((1, 2)) * (context if exchange == "a2a" else 1)
    if tensor > 1 and exchange != "a2a" and generator.random() < 0.3:
        groups = 1
    heads = groups * generator.choice((1, 2))
    while heads % tensor:
        heads += groups
    explicit = generator.random() < 0.3
    head_size = generator.choice([size for size in (2, 4, 6, 8, 16, 32, 64) if 32 <= heads * size <= 64])
    return {
        "parallel.cp_comm_type": exchange,
        "model.language.num_query_groups": groups,
        "model.language.num_attention_heads": heads,
        "model.language.kv_channels": head_size if explicit else None,
        "model.language.hidden_size": 4 * generator.randrange(8, 17) if explicit else heads * head_size,
        "model.language.ffn_hidden_size": tensor * generator.randrange(16, 40),
        "model.language.vocab_size": generator.randrange(50, 120),
        "model.language.make_vocab_size_divisible_by": generator.choice((1, 8, 10)),
    }


def _good_recomputation(generator: random.Random, fewest_layers: int) -> _Changes:
    kind = generator.choice((None, None, "full", "selective"))
    if kind == "full":
        method = generator.choice(("uniform", "block"))
        return {
            "model.recompute_granularity": "full",
            "model.recompute_method": method,
            "model.recompute_num_layers": generator.randint(1, fewest_layers) if method == "block" else 1,
        }
    if kind == "selective":
        modules = generator.choice((None, ["core_attn"], ["mlp"], ["core_attn", "mlp"]))
        return {"model.recompute_granularity": "selective", "model.recompute_modules": modules}
    return {}


def _good_tower(generator: random.Random) -> _Changes:
    family = generator.choice(("clip", "siglip"))
    whole = family == "clip" and generator.random() < 0.3
    side = generator.choice((28, 42))
    changes: _Changes = {
        "model.vision.vision_model_type": family,
        "model.vision.vision_select_feature": "cls_patch" if whole else "patch",
        "model.vision.vision_select_layer": generator.choice((-1, -2, 2)),
        "model.vision.image_size": side,
        "model.vision.freeze": generator.random() < 0.6,
        "model.projector.mm_projector_type": generator.choice(("linear", "mlp2x_gelu")),
        "model.language.freeze": generator.random() < 0.3,
    }
    if generator.random() < 0.3:
        changes["model.vision.image_token_len"] = (side // 14) ** 2 + whole
    return changes


def _wrong_field(generator: random.Random, recipe: Recipe) -> _Changes:
    """Return a change of one field that may or may not make the recipe wrong."""
    choices: dict[str, Sequence[Any]] = {
        "parallel.tensor_model_parallel_size": (1, 2, 3, 4),
        "parallel.pipeline_model_parallel_size": (1, 2, 3, 4),
        "parallel.context_parallel_size": (1, 2, 3, 4),
        "parallel.cp_comm_type": ("p2p", "all_gather", "a2a"),
        "parallel.virtual_pipeline_model_parallel_size": (None, 1, 2, 3, 4),
        "parallel.num_layers_in_first_pipeline_stage": (None, 1, 2, 3, 5),
        "parallel.num_layers_in_last_pipeline_stage": (None, 1, 2, 3, 5),
        "parallel.sequence_parallel": (not recipe.parallel.sequence_parallel,),
        "parallel.use_distributed_optimizer": (not recipe.parallel.use_distributed_optimizer,),
        "parallel.overlap_grad_reduce": (not recipe.parallel.overlap_grad_reduce,),
        "parallel.overlap_param_gather": (not recipe.parallel.overlap_param_gather,),
        "trainer.devices": (None, 1, 2, 3, 4),
        "trainer.num_nodes": (2, 3),
        "data.global_batch_size": range(1, 9),
        "data.micro_batch_size": (1, 2, 3, 4),
        "data.sequence_length": (2, 4, 5, 9, 10, 17, 31, 32),
        "model.language.num_layers": range(1, 7),
        "model.language.hidden_size": (30, 32, 36, 40, 44, 64),
        "model.language.num_attention_heads": (1, 2, 3, 4, 5, 6, 8, 12),
        "model.language.num_query_groups": (1, 2, 3, 4, 6, 8),
        "model.language.kv_channels": (None, 3, 5, 6, 8, 16),
        "model.language.ffn_hidden_size": (33, 34, 35, 36, 48),
        "model.language.vocab_size": (50, 51, 97, 128),
        "model.recompute_granularity": (None, "full", "selective"),
        "model.recompute_method": (None, "uniform", "block"),
        "model.recompute_num_layers": (None, 1, 2, 3, 4, 7),
        "model.recompute_modules": (None, ["core_attn"], ["mlp"]),
        "model.language.freeze": (not recipe.model.language.freeze,),
    }
    if recipe.model.vision is not None:
        choices |= {
            "model.vision.hidden_size": (15, 16, 18),
            "model.vision.num_attention_heads": (1, 2, 3, 4),
            "model.vision.image_size": (13, 14, 27, 28, 30, 56),
            "model.vision.vision_select_layer": range(-6, 6),
            "model.vision.vision_select_feature": ("patch", "cls_patch"),
            "model.vision.image_token_len": (3, 4, 5, 9),
            "model.vision.freeze": (not recipe.model.vision.freeze,),
            "model.projector.freeze": (True,),
        }
    field = generator.choice(sorted(choices))
    return {field: generator.choice(choices[field])}


def plan_errors(recipe: Recipe) -> list[str]:
    """Return the codes of the plan's errors."""
    return [finding.code for finding in check_recipe(recipe) if finding.severity == "error"]


def disagreement(recipe: Recipe, verdict: Verdict) -> str | None:
    """Return a line for people if the plan and Megatron-Core do not agree."""
    errors = plan_errors(recipe)
    if bool(errors) != verdict.works:
        return None
    says = f"the plan says {', '.join(errors)}" if errors else "the plan says nothing"
    return f"{says}; Megatron-Core: {verdict.reason or 'works'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print where the plan and Megatron-Core disagree, and how many recipes there were; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.plan.against_core.random_layouts",
        description="Compare the plan with Megatron-Core on random recipes.",
    )
    parser.add_argument("--count", type=int, default=500, help="number of recipes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (%(default)s)")
    options = parser.parse_args(arguments)
    recipes = random_layouts(options.seed, options.count)
    verdicts = ask_core(recipes)
    wrong = 0
    processes: Counter[int] = Counter()
    codes: Counter[str] = Counter()
    for number, (recipe, verdict) in enumerate(zip(recipes, verdicts, strict=True)):
        processes[recipe.trainer.num_nodes * devices_per_node(recipe)] += 1
        codes.update(set(plan_errors(recipe)) or {"works"})
        line = disagreement(recipe, verdict)
        if line is not None:
            wrong += 1
            print(f"{number}: {line}\n    {recipe}")
    print(f"{options.count} recipes of seed {options.seed}: {options.count - wrong} agreed, {wrong} did not")
    print("processes: " + ", ".join(f"{count} on {size}" for size, count in sorted(processes.items())))
    print("by code: " + ", ".join(f"{code} {count}" for code, count in codes.most_common()))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
