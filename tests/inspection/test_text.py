"""The text of a dry run: whole, true, and within 80 columns."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings

import executors
from neva_recipes import gpt, llava, neva
from neva_recipes.config import COMMAND_LINE, format_value, iterate_fields, set_field, value_from
from neva_recipes.inspection import inspect_recipe, inspection_to_text, recipe_to_text
from neva_recipes.inspection.figures import duration, facts_in_short, gib, rounded
from neva_recipes.plan import plan
from neva_recipes.plan.cost.cost import Cost
from neva_recipes.plan.data.lengths import Lengths
from tests.recipes.test_recipes_round_trip import changed_recipes

GOLDEN = Path(__file__).parent / "golden"

ON_64_GPUS = {
    "trainer.num_nodes": "8",
    "parallel.tensor_model_parallel_size": "4",
    "parallel.sequence_parallel": "true",
    "parallel.pipeline_model_parallel_size": "2",
    "data.micro_batch_size": "2",
    "data.data_path": "/data/" + "/".join(["of a project with long names"] * 4) + "/train.json",
}


def with_overrides(recipe, overrides):
    with value_from(COMMAND_LINE):
        for path, text in overrides.items():
            set_field(recipe, path, text)
    return recipe


def document(recipe, **options):
    """Return the text of a dry run without the command, which holds paths and the time."""
    text = inspection_to_text(inspect_recipe(recipe, name="run"), **options)
    return re.sub(r"(?s)(Command of[^\n]*\n).*?\n\n", r"\1  ...\n\n", text)


def sections(text):
    """Return the lines of each section by the first word of its title."""
    found = {}
    for line in text.splitlines():
        if line and line[0] not in " *":
            found[line.split()[0].rstrip(":")] = current = []
        elif line:
            current.append(line)
    return found


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("llava.finetune-64-gpus", with_overrides(llava.finetune(), ON_64_GPUS)),
        ("gpt.pretrain-tiny", gpt.pretrain("tiny")),
    ],
)
def test_golden_text(name, recipe):
    """What people see of recipe, layout and parameters; a golden file that is not there is written, to be read."""
    golden = GOLDEN / f"{name}.txt"
    text, _, _ = document(recipe).partition("\nMemory")
    if not golden.exists():
        golden.write_text(text)
        pytest.fail(f"{golden} written: read it, and keep it if it is right")
    assert text == golden.read_text()


def test_on_a_cpu_only_what_is_known_is_told():
    """Nothing of a GPU, unless one is named, or the recipe is for other machines than this one."""
    recipe = llava.finetune("tiny")
    found = sections(document(recipe))
    assert found["Memory"] == [
        "  stage  weights  gradients  optimizer  total",
        # 1,888,384 weights and 1,017,216 trained ones in fp32; two moments of each trained one
        "  0          7.2        3.9        7.8   18.8",
        "  more        activations, and PyTorch itself: how much is not known for a CPU",
    ]
    tokens = inspect_recipe(recipe).plan.lengths.tokens
    assert (
        f"  tokens      {64 * tokens:,.0f} a step, {64 * 800 * tokens / 1e6:.1f} M the run without padding"
        in found["Cost"]
    )
    assert found["Cost"][-1] == "  time        not known for a CPU: --gpu NAME tells it for a GPU"
    for place in (executors.LocalExecutor(), executors.SlurmExecutor()):
        recipe.trainer.accelerator = "cpu"
        text = inspection_to_text(inspect_recipe(recipe, place))
        assert not re.search(r"h100|GiB|GPU hours|GPUs", text)
        recipe.trainer.accelerator = "auto"
        text = inspection_to_text(inspect_recipe(recipe, place))
        assert ("h100-80g with 79.1 GiB, assumed" in text) == isinstance(place, executors.SlurmExecutor)
    assert "h100-80g with 79.1 GiB\n" in inspection_to_text(inspect_recipe(recipe, gpu="h100-80g"))
    recipe.trainer.num_nodes = 2
    assert "h100-80g with 79.1 GiB, assumed" in inspection_to_text(inspect_recipe(recipe))


def test_memory_time_and_cost_in_short():
    """One line each for a stage; the ranges for the points of a sweep, and the cost of all together."""
    recipe, other = llava.finetune(), llava.finetune()
    other.data.global_batch_size = 256
    one, two = (plan(each, gpu="a100-80g") for each in (recipe, other))
    (memory, time, cost), (both, times, costs) = list(facts_in_short([one])), list(facts_in_short([one, two]))
    assert memory == both == ("memory", f"{gib(one.memory[0].total)} of 79.1 GiB on a100-80g")
    (by_open_name, *_) = facts_in_short([plan(recipe, gpu="a100")])
    assert by_open_name == ("memory", f"{memory[1]} (it may be a100-40g)")
    hours = [each.cost.gpu_hours / 8 for each in (one, two)]
    steps = [each.cost.step_seconds for each in (one, two)]
    assert time == ("time", f"about {duration(3600 * hours[0])}, {duration(steps[0])} a step")
    spans = [" to ".join(map(duration, sorted(each))) for each in ([3600 * hour for hour in hours], steps)]
    assert times == ("time", f"about {spans[0]}, {spans[1]} a step")
    assert cost == ("cost", f"{rounded(8 * hours[0])} GPU hours")
    assert costs == ("cost", f"{rounded(8 * sum(hours))} GPU hours, 2 points together")
    # On a CPU, and without the number of steps.
    tiny = plan(llava.finetune("tiny"), executors.LocalExecutor())
    assert [label for label, _ in facts_in_short([tiny])] == ["memory", "tokens"]
    recipe.trainer.max_steps, recipe.trainer.max_epochs = None, 1
    assert list(facts_in_short([plan(recipe, gpu="a100-80g")]))[1:] == [
        ("time", f"about {duration(steps[0])} a step; the number of steps is not known without the data file")
    ]
    assert all(len(value) <= 70 for facts in ([memory, time, cost], [both, times, costs]) for _, value in facts)


def test_samples_and_cost_in_words():
    """Made-up figures, so that the text does not depend on how they are estimated."""
    inspection = inspect_recipe(llava.finetune(), gpu="h100-80g", name="run")
    planned = dataclasses.replace(
        inspection.plan,
        lengths=Lengths(995.4, 1014.2, 1.25, 665_298, 0.0213, "500 samples of train.json", True),
        cost=Cost(
            sample_tflop=40.7421,
            sample_tflop_of={"linear layers": 39.0, "attention": 1.7421, "projector": 0.0001},
            step_tflop=5304.1,
            recompute_tflop=715.4,
            padding=0.0187,
            steps=5198,
            passes=1.00009,
            utilisation=0.45,
            step_seconds=1.8449,
            step_seconds_range=(1.5, 2.3),
            step_seconds_of={"matrix products": 1.7449, "bubble": 0.1, "optimizer": 0.0},
            hours=2.664,
            hours_range=(2.1312, 3.33),
            gpu_hours=170.5,
        ),
    )
    text = inspection_to_text(dataclasses.replace(inspection, plan=planned))
    assert (
        "\n".join(sections(text)["Samples"])
        == """\
  tokens      995 a sample, 1,014 with padding
  images      1.25 a sample, 576 tokens each
  samples     665,298
  cut         2.1 % of the samples, at 2,048 tokens
  measured    500 samples of train.json"""
    )
    assert (
        "\n".join(sections(text)["Cost"])
        == """\
  a sample    40.7 TFLOP without padding: linear layers 96 %, attention 4.3 %
  a step      5.30 PFLOP with padding, and 715 TFLOP to recompute
  padding     1.9 % of the tokens of a step carry no work
  steps       5,198, about 1.0 pass over 665,298 samples
  tokens      127,411 a step, 662 M the run without padding
  disk        88.7 GiB a checkpoint, at most 177.4 GiB: 1 kept and 1 in writing
  time        about 1.8 s (1.5 s to 2.3 s) a step: matrix products 95 %, bubble
              5.4 %
  the run     about 2.7 h (2.1 h to 3.3 h), 170 GPU hours
  assumed     matrix products at 45 % of the 989 TFLOP/s of h100-80g in bf16; no
              GPU was asked"""
    )


@settings(deadline=None, max_examples=25)
@given(changed_recipes())
def test_every_value_is_there_and_lines_fit(recipe):
    text = recipe_to_text(recipe)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert [line for line in document(recipe).splitlines() if len(line) > 80 and " " not in line.strip(" ;,:")] == []
    # Folding may take only spaces away.
    squeezed = re.sub(r"\s+", "", text)
    for field in iterate_fields(recipe):
        setting = f"{field.path.rpartition('.')[2]}:{format_value(field.value) or repr('')}"
        assert re.sub(r"\s+", "", setting) in squeezed


def test_only_ascii_of_its_own():
    for recipe in (llava.finetune("13b"), neva.pretrain(), gpt.pretrain("tiny")):
        assert inspection_to_text(inspect_recipe(recipe, name="run")).isascii()


def test_colours_change_nothing_but_colours():
    recipe = with_overrides(llava.finetune(), {**ON_64_GPUS, "parallel.pipeline_model_parallel_size": "5"})
    plain, coloured = document(recipe), document(recipe, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[31merror" in coloured and "\x1b[33m* " in coloured and "\x1b[1mFindings" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


LAYOUTS = [
    # nodes, devices, TP, PP, CP, micro batch
    (1, 8, 2, 2, 1, 1),
    (1, 8, 1, 1, 1, 1),
    (8, 8, 4, 2, 1, 1),
    (2, 8, 1, 4, 2, 1),
    (16, 8, 2, 8, 1, 1),
    (32, 8, 1, 2, 1, 1),
]


@pytest.mark.parametrize(("nodes", "devices", "tensor", "pipeline", "context", "micro"), LAYOUTS)
def test_ranks_by_stage_and_replica(nodes, devices, tensor, pipeline, context, micro):
    """Megatron-Core counts ranks through the tensor group first, then context, data, pipeline."""
    recipe = llava.finetune()
    recipe.trainer.num_nodes, recipe.trainer.devices = nodes, devices
    recipe.parallel.tensor_model_parallel_size, recipe.parallel.pipeline_model_parallel_size = tensor, pipeline
    recipe.parallel.context_parallel_size, recipe.data.micro_batch_size = context, micro
    recipe.data.global_batch_size = 1024
    lines = sections(document(recipe))["Layout"]
    world, replicas = nodes * devices, nodes * devices // (tensor * pipeline * context)
    assert f"  GPUs        {world} = {nodes} node{'s' if nodes > 1 else ''} x {devices}" in lines
    assert any(f"TP {tensor} x PP {pipeline} x CP {context} x DP {replicas}" in line for line in lines)
    stages = [line for line in lines if line.startswith("  stage") and "rank" in line]
    per_stage, layers = world // pipeline, 32 // pipeline
    for number, line in enumerate(stages):
        first, last = re.match(rf"  stage {number}, ranks (\d+)-(\d+): ", line).groups()
        assert (int(first), int(last)) == (number * per_stage, (number + 1) * per_stage - 1)
        assert f"layers {number * layers}-{(number + 1) * layers - 1}" in line
        assert ("vision tower" in line, "output" in line) == (number == 0, number == pipeline - 1)
    assert len(stages) == pipeline
    header = next((line.split()[1:] for line in lines if line.startswith("  replica")), [])
    rows = [line.split()[2:] for line in lines if re.match(r"  stage \d+ +\S+$|  stage \d+ +[\d.-]+ ", line)]
    if tensor * pipeline * context > 1 and replicas > 1:
        assert len(rows) == pipeline and header[0] == "0" and header[-1] == str(replicas - 1)
        for number, cells in enumerate(rows):
            for replica, cell in zip(header, cells, strict=True):
                if replica == "...":
                    assert cell == "..."
                    continue
                first = (number * replicas + int(replica)) * context * tensor
                last = first + context * tensor - 1
                assert cell == (f"{first}-{last}" if last > first else str(first))
    else:
        assert rows == []


def test_uneven_and_virtual_stages_name_their_layers():
    recipe = llava.finetune()
    recipe.parallel.pipeline_model_parallel_size = 4
    recipe.parallel.virtual_pipeline_model_parallel_size = 2
    recipe.data.micro_batch_size = 2
    text = document(recipe)
    assert "stage 0, ranks 0-1: layers 0-3, 16-19, vision tower, projector, embedding\n" in text
    assert "stage 3, ranks 6-7: layers 12-15, 28-31, output\n" in text
    assert "(4 stages, 2 pieces each, taken as" in text
    recipe.parallel.virtual_pipeline_model_parallel_size = None
    recipe.parallel.num_layers_in_first_pipeline_stage = 5
    text = document(recipe)
    assert "stage 0, ranks 0-1: layers 0-4, vision tower" in text
    assert "stage 1, ranks 2-3: layers 5-13\n" in text
    assert "stage 3, ranks 6-7: layers 23-31, output\n" in text


def test_memory_rows_add_up_and_bars_show_the_share():
    recipe = with_overrides(llava.finetune(), ON_64_GPUS)
    inspection = inspect_recipe(recipe, gpu="a100-40g", name="run")
    lines = sections(inspection_to_text(inspection))["Memory"]
    assert lines[0] == "  GPU         a100-40g with 39.4 GiB"
    header = next(number for number, line in enumerate(lines) if line.startswith("  stage"))
    for stage, memory in enumerate(inspection.plan.memory):
        *parts, total = (float(cell) for cell in lines[header + 1 + stage].split()[1:])
        assert abs(sum(parts) - total) <= 0.05 * (len(parts) + 1)
        assert total == pytest.approx(sum(memory.bytes.values()) / 2**30, abs=0.06)
        bar, share = re.search(r"\[([#.]+)\] ([\d.]+) %", lines[header + 3 + stage]).groups()
        assert float(share) == pytest.approx(100 * total / 39.4, abs=0.6)
        assert len(bar) == 50 and abs(bar.count("#") - 50 * total / 39.4) <= 1


def test_stages_that_are_alike_share_a_row():
    inspection = inspect_recipe(with_overrides(llava.finetune(), ON_64_GPUS), name="run")
    one, other = inspection.plan.memory
    memory = [
        one,
        *(dataclasses.replace(other, stage=stage) for stage in range(1, 8)),
        dataclasses.replace(one, stage=8),
    ]
    planned = dataclasses.replace(inspection.plan, memory=tuple(memory))
    lines = sections(inspection_to_text(dataclasses.replace(inspection, plan=planned)))["Memory"]
    assert [line.split()[0] for line in lines if re.match(r"  [\d-]+ +\d", line)] == ["0", "1-7", "8"]
