"""Tensor, pipeline, sequence and context parallelism change neither weights nor losses nor gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layout_worker import LAYOUTS, cases, measure
from model_cases import hf_llava, llava_recipe

from neva_model.model import build_model
from tests.inference.tiny_models import save_run

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

CASES = ["finetune", "pretrain", "all trained", "imported", "from a run", "bf16"]
CASES += ["dinov2", "qwen2", "qwen3", "mistral", "yarn", "longrope"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("llava")
    hf_llava(llava_recipe()).save_pretrained(path / "llava")
    recipe = llava_recipe({"trainer.seed": 7})
    save_run(build_model(recipe, pre_process=True, post_process=True), recipe, path / "run")
    return str(path)


@pytest.fixture(scope="module")
def ranks(directory, tmp_path_factory):
    """Run four processes through every layout and case, and return what each of them measured."""
    output = tmp_path_factory.mktemp("ranks")
    here = Path(__file__).parent
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(here / "layout_worker.py"), directory, str(output)],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "4",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(4)
    ]
    try:
        logs = [process.communicate(timeout=1200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(log[-3000:] for log in logs)
    return [torch.load(output / f"rank-{rank}.pt", weights_only=False) for rank in range(4)]


@pytest.fixture(scope="module")
def alone(directory):
    return {name: measure(llava_recipe(changes), overlap=False) for name, changes in cases(directory)}


def gathered(ranks, layout, case, which):
    """Return every whole weight (0) or gradient (1), put together from shards; ranks that share one must agree."""
    shards = {}
    for rank in ranks:
        measured = rank[layout, case]
        for name, (*values, dimension) in measured["tensors"].items():
            part = measured["tensor rank"] if dimension is not None else 0
            value = values[which]
            other = shards.setdefault((name, dimension), {}).setdefault(part, value)
            assert other is value is None or torch.equal(other, value), f"{name} differs between ranks that share it"
    return {
        name: join(name, [parts[key] for key in sorted(parts)], dimension or 0)
        for (name, dimension), parts in shards.items()
    }


def join(name, parts, dimension):
    if parts[0] is None:
        return None
    if name.endswith("linear_fc1.weight"):
        # Every rank has its share of the gate above its share of the rest.
        halves = [part.chunk(2) for part in parts]
        return torch.cat([half for side in zip(*halves, strict=True) for half in side])
    return torch.cat(parts, dimension)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_do_not_depend_on_the_layout(layout, case, ranks, alone):
    expected = gathered([{("one", case): alone[case]}], "one", case, 0)
    weights = gathered(ranks, layout, case, 0)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        if name.endswith(("embeddings.weight", "output_layer.weight")):
            rows = 102 if case == "imported" else 100
            assert (weight[rows:] == 0).all()
            assert torch.equal(weight[:rows], expected[name][:rows]), name
        else:
            assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_do_not_depend_on_the_layout(layout, case, ranks, alone):
    last = LAYOUTS[layout].get("pipeline_model_parallel_size", 1) - 1
    parts = 2 * LAYOUTS[layout].get("context_parallel_size", 1)
    for rank in ranks:
        if rank[layout, case]["stage"] == last:
            for loss, whole in zip(rank[layout, case]["losses"], alone[case]["losses"], strict=True):
                assert whole.abs().max() > 1.0
                chunks, index = whole.chunk(parts, 1), rank[layout, case]["context rank"]
                expected = torch.cat([chunks[index], chunks[parts - 1 - index]], 1)
                assert (loss - expected).abs().max() <= (0.15 if case == "bf16" else 1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_do_not_depend_on_the_layout(layout, case, ranks, alone):
    expected = gathered([{("one", case): alone[case]}], "one", case, 1)
    gradients = gathered(ranks, layout, case, 1)
    trained = {name.split(".")[0] for name, gradient in gradients.items() if gradient is not None}
    assert (
        trained
        == {
            "finetune": {"language", "projector"},
            "pretrain": {"projector"},
            "all trained": {"language", "projector", "vision"},
            "imported": {"language", "projector"},
            "from a run": {"language", "projector"},
            "mistral": {"language", "projector"},
            "dinov2": {"language", "projector", "vision"},
            "qwen2": {"language", "projector"},
            "qwen3": {"language", "projector"},
            "yarn": {"language", "projector"},
            "longrope": {"language", "projector"},
            "bf16": {"language", "projector", "vision"},
        }[case]
    )
    for name, gradient in gradients.items():
        if expected[name] is None:
            assert gradient is None, name
            continue
        rows = min(len(gradient), len(expected[name]))
        assert expected[name].any(), f"{name} has no gradient"
        error = gradient[:rows] - expected[name][:rows]
        if case == "bf16":
            assert error.norm() < 0.1 * expected[name].norm() + 1e-4, name
        else:
            assert error.abs().max() <= 1e-6 + 1e-4 * expected[name].abs().max(), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_drop_the_same_only_where_they_hold_the_same(layout, ranks):
    places = {}
    for rank in ranks:
        draws = rank[layout, "draws"]
        place = tuple(rank[layout, "finetune"][name] for name in ("stage", "context rank", "data rank"))
        places.setdefault(tuple(draws["shared"].tolist()), set()).add(place)
    assert all(len(same) == 1 for same in places.values())
    assert len(places) == 4 // LAYOUTS[layout].get("tensor_model_parallel_size", 1)
    assert len({tuple(rank[layout, "draws"]["own"].tolist()) for rank in ranks}) == 4


def layers_of_stages(fields):
    if "virtual_pipeline_model_parallel_size" in fields:
        return [[0, 2], [1, 3]]
    if "num_layers_in_first_pipeline_stage" in fields:
        return [[0, 1, 2], [3]]
    if "num_layers_in_last_pipeline_stage" in fields:
        return [[0], [1, 2, 3]]
    return [[0, 1], [2, 3]] if "pipeline_model_parallel_size" in fields else [[0, 1, 2, 3]]


def test_parts_lie_on_the_right_ranks(ranks):
    for rank in ranks:
        for layout, fields in LAYOUTS.items():
            tensor = fields.get("tensor_model_parallel_size", 1)
            measured = rank[layout, "finetune"]
            names = set(measured["tensors"])
            assert any(name.startswith("vision.") for name in names) == (measured["stage"] == 0)
            assert any(name.startswith("projector.") for name in names) == (measured["stage"] == 0)
            layers = {int(name.split(".")[3]) for name in names if name.startswith("language.decoder.layers.")}
            assert layers == set(layers_of_stages(fields)[measured["stage"]])
            if measured["stage"] == 0:
                embedding = measured["tensors"]["language.embedding.word_embeddings.weight"][0]
                assert embedding.shape == (128, 32)
                attention = measured["tensors"]["language.decoder.layers.0.self_attention.linear_qkv.weight"][0]
                assert attention.shape == (64 // tensor, 32)
