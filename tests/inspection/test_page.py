"""The HTML page, as text and in a real browser."""

import dataclasses
import re
import shlex
from datetime import datetime

import pytest

from executors import Evaluate, Export, LocalExecutor, Pipeline, Stage, plan_pipeline
from neva_recipes import gpt, llava
from neva_recipes.cli.main import main
from neva_recipes.config import COMMAND_LINE, config, set_field, value_from
from neva_recipes.inspection import inspect_recipe
from neva_recipes.inspection.page import inspection_to_html
from neva_recipes.inspection.pipeline_page import pipeline_to_html
from neva_recipes.inspection.tree import recipe_rows
from neva_recipes.plan import Finding
from tests.pages import Page, measured, needs_browser

HOSTILE = "<script>document.title='taken'</script>\"'&amp;</pre></style>--><img src=x onerror=alert(1)>ü"


def large():
    """64 GPUs, in two pipeline stages."""
    recipe = llava.finetune()
    with value_from(COMMAND_LINE):
        for path, text in {
            "trainer.num_nodes": "8",
            "parallel.tensor_model_parallel_size": "4",
            "parallel.sequence_parallel": "true",
            "parallel.pipeline_model_parallel_size": "2",
            "data.micro_batch_size": "2",
        }.items():
            set_field(recipe, path, text)
    return recipe


def hostile():
    """Text of every kind that could be taken for markup: values, findings, and the path in the script."""
    recipe = llava.finetune("tiny")
    with value_from(COMMAND_LINE):
        set_field(recipe, "data.data_path", HOSTILE)
    recipe.data.image_folder = HOSTILE
    recipe.logging.wandb_entity = "w" * 3000
    inspection = inspect_recipe(recipe, runs_dir="<b>runs & 'more'</b>", name="run")
    finding = Finding("invented", "warning", HOSTILE, {"data.data_path": HOSTILE})
    return dataclasses.replace(
        inspection, plan=dataclasses.replace(inspection.plan, findings=(*inspection.plan.findings, finding))
    )


def test_the_page_stands_by_itself():
    page = Page(inspection_to_html(inspect_recipe(large(), name="run")))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "url(" not in "".join(page.texts) and "@import" not in "".join(page.texts)


def test_everything_is_on_it():
    inspection = inspect_recipe(large(), gpu="h100-80g", name="run")
    page = Page(inspection_to_html(inspection))
    titles = [value for name, value in page.attributes if name == "title"]
    assert [int(re.match(r"rank (\d+):", title)[1]) for title in titles if title.startswith("rank")] == list(range(64))
    # Megatron-Core's order: tensor group, then data, then pipeline.
    assert "rank 45: node 5, stage 1, replica 3, context part 0, tensor part 1" in titles
    assert [title for title in titles if title.startswith("layer 1")][:2] == ["layer 1: stage 0", "layer 10: stage 0"]
    assert {"layer 15: stage 0", "layer 16: stage 1", "vision tower: stage 0", "output: stage 1"} <= set(titles)
    text = "\n".join(page.texts)
    for row in recipe_rows(inspection.recipe):
        assert row.name in page.texts or f"{row.name} ({row.value})" in page.texts
        assert row.value in text
    for finding in inspection.plan.findings:
        assert finding.line() in page.texts
    assert "6,738,415,616" in page.texts and "command line, was 4" in page.texts


def test_bars_are_as_long_as_the_memory():
    inspection = inspect_recipe(large(), gpu="a100-40g", name="run")
    page = Page(inspection_to_html(inspection))
    styles = [value for name, value in page.attributes if name == "style"]
    widths = [float(value[len("width:") : -1]) for value in styles if value.startswith("width:")]
    limits = [float(value[len("left:") : -1]) for value in styles if value.startswith("left:")]
    assert page.texts.count("a100-40g: 39.4 GiB") == len(inspection.plan.memory)
    expected = [count / 2**30 / 39.4 for memory in inspection.plan.memory for count in memory.bytes.values()]
    assert [width / limits[0] for width in widths] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("gpu", "side"), [("a100-40g", "right"), ("rtx-4090", "left")])
def test_the_limit_is_labelled_where_the_bar_has_it(gpu, side):
    recipe = large() if side == "right" else llava.finetune("13b")
    recipe.parallel.tensor_model_parallel_size, recipe.parallel.sequence_parallel = 1, False
    text = inspection_to_html(inspect_recipe(recipe, gpu=gpu, name="run"))
    marks = [float(left) for left in re.findall(r'class="limit" style="left:([\d.]+)%"', text)]
    labels = re.findall(r'class="limit-label" style="text-align:(\w+);padding-(\w+):([\d.]+)%"', text)
    assert [(side, side)] * len(marks) == [label[:2] for label in labels]
    at = [float(free) if side == "left" else 100 - float(free) for _, _, free in labels]
    assert at == pytest.approx(marks, abs=0.02)


def test_the_page_says_what_was_typed_and_when(capfd):
    words = ["gpt.pretrain", "size=tiny", "data.data_path=it's <b>.txt", "--dry-run", "--format", "html"]
    before = datetime.now().astimezone().replace(second=0, microsecond=0)
    assert main(words) == 0
    page = Page(capfd.readouterr().out)
    (typed,) = [text for text in page.texts if text.startswith("nemo-run ")]
    assert shlex.split(typed) == ["nemo-run", *words]
    (when,) = [
        re.match(r"A dry run of (.*) \S+: nothing was written or started.", text)
        for text in page.texts
        if "A dry run of" in text
    ]
    shown = datetime.strptime(when[1], "%Y-%m-%d %H:%M").astimezone()
    assert before <= shown <= datetime.now().astimezone()


def test_hostile_text_stays_text():
    inspection = hostile()
    page = Page(inspection_to_html(inspection))
    assert not {"script", "img"} & set(page.tags)
    text = "".join(page.texts)
    assert text.count(HOSTILE) >= 4
    assert inspection.script in text


def pipeline(data_path=HOSTILE):
    """Two trainings, of which the first takes 64 GPUs, an export, and an evaluation with the images of the training."""
    first = large()
    with value_from(COMMAND_LINE):
        set_field(first, "data.data_path", data_path)
    first.data.image_folder = "images"
    train = Stage("train", first)
    broken = llava.finetune("13b")
    broken.parallel.tensor_model_parallel_size = 3
    second = Stage("again", broken)
    export = Stage("export", config(Export, model=train.output))
    evaluate = Stage("evaluate", config(Evaluate, model=export.output, data="held out.json"))
    steps = train >> second, train >> export >> evaluate
    return plan_pipeline(Pipeline("mine", *steps), LocalExecutor(gpu="h100-80g"), runs_dir="runs")


def test_a_pipeline_has_a_section_for_each_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = pipeline()
    text = pipeline_to_html(planned, typed="nemo-run mine")
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == ["Findings", "train", "again, after train", "export, after train", "evaluate, after export"]
    findings, train, again, export, evaluate = (Page(part) for part in re.findall("<section>.*?</section>", text, re.S))
    lines = (*planned.problems, *planned.warnings, *planned.not_here)
    assert planned.problems and all(line in findings.texts for line in lines)
    drawn = [value for name, value in train.attributes if name == "title" and value.startswith("rank ")]
    assert len(drawn) == 64 and HOSTILE in "".join(train.texts) and "command line, was" in "".join(train.texts)
    assert "trains llava.finetune: 64 processes, 5,198 steps" in train.texts
    assert "trains llava.finetune" in again.texts and "Layout" not in again.texts and "Recipe" in again.texts
    assert "runs export" in export.texts and "train.output" in export.texts
    assert {"export.output", "held out.json", f"image_folder={tmp_path}/images: that of the training"} <= {
        *evaluate.texts
    }


def test_without_a_layout_there_is_still_a_page():
    recipe = large()
    recipe.parallel.tensor_model_parallel_size = 3
    text = inspection_to_html(inspect_recipe(recipe, name="run"))
    page = Page(text)
    assert "Layout" not in page.texts and "None, since it would not be started: see Findings." in page.texts
    assert "finding error" in text


def test_of_huge_jobs_the_first_replicas_are_drawn():
    recipe = gpt.pretrain()
    recipe.trainer.num_nodes, recipe.data.global_batch_size = 512, 4096 * 4
    recipe.data.micro_batch_size = 1
    text = inspection_to_html(inspect_recipe(recipe, name="run"))
    drawn = len(re.findall('class="rank(?: odd)?"', text))
    assert 0 < drawn <= 1024 and "replicas like these" in text


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("make", [lambda: inspect_recipe(large(), name="run"), hostile], ids=["64-gpus", "hostile"])
def test_in_a_browser_nothing_sticks_out(make, width, tmp_path):
    inspection = make()
    found = measured(inspection_to_html(inspection), width, tmp_path)
    assert found["inner"] == width
    assert found["scroll"] <= width and (found["out"], found["small"]) == (0, 0)
    assert found["title"] == f"{inspection.plan.recipe.name}: dry run"
    assert found["ranks"] == [str(rank) for rank in range(inspection.plan.layout.world_size)]


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_of_a_pipeline_sticks_out(width, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = pipeline_to_html(pipeline(), typed="nemo-run mine " + "x" * 300)
    assert "<details>" in text
    found = measured(text.replace("<details>", '<details open="">'), width, tmp_path)
    assert found["scroll"] <= width and (found["out"], found["small"]) == (0, 0)
    assert found["title"] == "mine: dry run" and found["ranks"] == [str(rank) for rank in range(64)]


@needs_browser
def test_the_measurement_sees_what_sticks_out(tmp_path):
    text = inspection_to_html(inspect_recipe(gpt.pretrain("tiny"), name="run"))
    found = measured(text.replace("<h1>", '<h1 style="width:900px;font-size:9px">'), 390, tmp_path)
    assert found["scroll"] > 390 and (found["out"], found["small"]) == (1, 1)
