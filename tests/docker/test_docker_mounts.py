"""What a container sees of this machine; no engine is asked."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import executors
from executors import DockerExecutor, Evaluate, Export, Pipeline, Stage
from executors.docker import executor as docker_executor
from executors.docker.container import container_of
from executors.pipelines.planning import plan_pipeline
from executors.runs.again import job_again
from neva_recipes import llava
from neva_recipes.config import config
from tests.pipelines.recipes import make_recipe


def test_a_relative_source_is_that_of_the_launch(tmp_path, monkeypatch):
    """Wherever the run is resumed."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    executor = DockerExecutor(image="some", mounts=["./data:/data", "/all:/all:ro"])
    job = executors.plan_job(make_recipe(), executor, runs_dir=tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "second")
    sources = {bind.target: bind.source for bind in container_of(job, executor, {"hostname": "here"}).binds}
    assert sources["/data"] == str(tmp_path / "first" / "data")
    assert sources["/all"] == "/all"


def questions(folder):
    folder.mkdir()
    Image.new("RGB", (28, 28)).save(folder / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    (folder / "data.json").write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}]))
    return str(folder / "data.json")


def chain(tmp_path, accelerator):
    """Return two trainings, an export and an evaluation, of which each takes what the one before has made."""
    (tmp_path / "words").mkdir()
    recipes = [llava.finetune(size="tiny") for _ in range(2)]
    for name, recipe in zip(("first", "second"), recipes, strict=True):
        recipe.data.data_path = questions(tmp_path / name)
        recipe.data.tokenizer = str(tmp_path / "words")
        recipe.trainer.accelerator, recipe.trainer.devices = accelerator, 2
    recipes[0].data.image_folder = str(tmp_path / "first")
    first = Stage("a", recipes[0])
    recipes[1].model.language.from_pretrained = first.output
    second = Stage("b", recipes[1])
    export = Stage("c", config(Export, model=second.output))
    evaluate = Stage("d", config(Evaluate, model=second.output, data=questions(tmp_path / "held")))
    whole = Pipeline("mine", first >> second >> export >> evaluate)
    return plan_pipeline(whole, DockerExecutor(image="some"), runs_dir=tmp_path / "runs")


def read_by(job):
    """Return what the container of a job mounts, and whether only to read."""
    found = container_of(job, job.executor, {"hostname": "here"}).binds
    return {bind.target: bind.read_only for bind in found}


def test_each_stage_sees_what_it_reads_and_what_is_yet_to_be_made(tmp_path):
    """The script of a stage is what its start will be, once the stages before it have run."""
    planned = chain(tmp_path, "cpu")
    directory = planned.job.run_dir
    jobs = planned.stage_jobs(directory)
    stage = {name: str(directory / "stages" / name) for name in "abcd"}
    words, held = str(tmp_path / "words"), tmp_path / "held"
    seen = {
        "a": {str(tmp_path / "first" / "data.json"), str(tmp_path / "first"), words},
        "b": {str(tmp_path / "second" / "data.json"), str(tmp_path / "second"), words, stage["a"]},
        "c": {words, stage["a"], stage["b"]},
        "d": {str(held / "data.json"), str(held), words, stage["a"], stage["b"]},
    }
    expected = {name: dict.fromkeys(paths, True) | {stage[name]: False} for name, paths in seen.items()}
    assert {job.name: read_by(job) for job in jobs} == expected
    assert f"source={stage['b']},target={stage['b']},readonly" in jobs[-1].script()

    directory.mkdir(parents=True)
    planned.write_stages(directory, directory)
    for job in jobs[2:]:
        again, _ = job_again(job.run_dir, None, None, None, None, goes_on=False)
        assert read_by(again) == expected[job.name]


@pytest.mark.parametrize("accelerator", ["gpu", "cpu"])
def test_a_stage_that_trains_nothing_has_one_gpu_where_its_model_had_them(tmp_path, accelerator):
    planned = chain(tmp_path, accelerator)
    jobs = planned.stage_jobs(planned.job.run_dir)
    gpus = [container_of(job, job.executor, {"hostname": "here"}).gpus for job in jobs]
    assert gpus == (["2", "2", "1", "1"] if accelerator == "gpu" else [None] * 4)
    planned.job.run_dir.mkdir(parents=True)
    planned.write_stages(planned.job.run_dir, planned.job.run_dir)
    again, _ = job_again(jobs[-1].run_dir, None, None, None, None, goes_on=False)
    assert container_of(again, again.executor, {"hostname": "here"}).gpus == gpus[-1]


def test_what_is_yet_to_be_made_is_not_tried(tmp_path, monkeypatch):
    """An engine refuses a mount whose source is missing."""
    tried = []
    client = SimpleNamespace(info=dict)
    monkeypatch.setattr(docker_executor, "connect", lambda address: client)
    monkeypatch.setattr(docker_executor, "remove_leftovers", lambda client: None)
    monkeypatch.setattr(docker_executor, "probe", lambda client, container, run_dir: tried.append(container.binds))
    planned = chain(tmp_path, "cpu")
    jobs = planned.stage_jobs(planned.job.run_dir)
    for job in jobs:
        job.executor.require_ready(job)
    missing = [{bind.target for bind in binds if not Path(bind.source).exists()} for binds in tried]
    assert missing == [{str(job.run_dir)} for job in jobs]


def test_a_container_keeps_its_root_and_its_home(tmp_path):
    """A file there is mounted, the folder around it only if the user says so."""
    reads = (Path("/"), Path("/tmp"), Path("/tmp/data.json"), tmp_path)
    for mounts, more in (([], {}), (["/tmp:/tmp"], {"/tmp": False})):
        executor = DockerExecutor(image="some", mounts=mounts)
        job = executors.plan_job(make_recipe(), executor, runs_dir=tmp_path / "runs")
        seen = read_by(dataclasses.replace(job, recipe_yaml=None, reads=reads))
        assert seen == {"/tmp/data.json": True, str(tmp_path): True, str(job.run_dir): False} | more
