"""The layouts that checkpoints are saved by, and the models."""

from tests.model.model_cases import changed, llava_recipe, text_recipe

LAYOUTS = {
    "TP2 PP2": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    # A rank's rows of query, key and value begin within a group.
    "TP4": {"tensor_model_parallel_size": 4},
    "PP2 VP2": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
}

CASES = ("llava", "gpt2", "averaged")


def recipe_of(case, changes=None):
    rows = {"model.language.vocab_size": 421, **(changes or {})}
    if case == "llava":
        return changed(llava_recipe(), rows)
    family = {"model.language.family": "gpt2", "model.language.num_query_groups": 4} if case == "gpt2" else {}
    tied = {"model.language.share_embeddings_and_output_weights": True} if case == "averaged" else {}
    return changed(text_recipe(), rows | family | tied)
