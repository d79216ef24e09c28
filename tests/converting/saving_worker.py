"""One rank of the layout tests: saves the same models under several layouts, as the worker of a run does."""

import os
import sys
from pathlib import Path

import torch

from neva_model.startup import prepare_process
from neva_recipes.config import draft_of, recipe_to_yaml
from tests.converting.layouts import CASES, LAYOUTS, recipe_of


def main():
    prepare_process()
    from megatron.core import parallel_state

    from neva_model.checkpoints.average import average_shards
    from neva_model.checkpoints.distributed import save_sharded, sharding_metadata
    from neva_model.checkpoints.information import CheckpointInformation
    from neva_model.model import build_chunks, initialize_model_parallel

    output, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    for number, (layout, fields) in enumerate(LAYOUTS.items()):
        meeting = f"file://{output}/ranks-{number}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=4)
        for case in CASES:
            recipe = recipe_of(case, {f"parallel.{name}": value for name, value in fields.items()})
            initialize_model_parallel(recipe.parallel, seed=1234)
            chunks = build_chunks(recipe)
            state = {"model": chunks.sharded_state_dict(metadata=sharding_metadata())}
            has_average = case == "averaged"
            if has_average:
                averages = [parameter.detach() * 2 for parameter in chunks.parameters() if parameter.requires_grad]
                state["average"] = average_shards(chunks, averages)
            sizes = {name: value for name, value in fields.items() if name.endswith("_size")}
            usual = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1}
            information = CheckpointInformation(
                step=1,
                consumed_samples=8,
                metrics={},
                projector_digest=None,
                world_size=4,
                has_average=has_average,
                **{**usual, **sizes},
            )
            yaml = recipe_to_yaml(draft_of(recipe))
            save_sharded(state, output / layout / case / "step-00000001", information, yaml)
            parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
