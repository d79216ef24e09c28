"""What a plan shows to be unwise in the request of a job is told beforehand; times are worked out by hand."""

import dataclasses
import re

import pytest

from executors import DockerExecutor, LocalExecutor, SlurmExecutor, plan_job
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import UserError
from neva_recipes.plan import plan
from neva_recipes.plan.resuming import plan_going_on

GB = 10**9


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "SBATCH_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def planned():
    """Return a plan of a run on one node whose checkpoint has 60 GB and whose step takes 10 s."""
    whole = plan(llava.finetune(), SlurmExecutor(gpu_model="h100"))
    disk = dataclasses.replace(whole.disk, checkpoint=60 * GB)

    def of(hours, nodes=1):
        cost = dataclasses.replace(whole.cost, step_seconds=10.0, hours=hours, hours_range=(0.8 * hours, 1.25 * hours))
        layout = dataclasses.replace(whole.layout, num_nodes=nodes)
        return dataclasses.replace(whole, cost=cost, disk=disk, layout=layout)

    return of


def told(plan, *codes, **fields):
    executor = SlurmExecutor(**fields)
    return [(each.severity, each.line()) for each in executor.advise(plan) if each.code in codes]


@pytest.mark.parametrize(
    ("hours", "fields", "line"),
    [
        # 100 minutes, 80 at least; 125 at most and 3 for a start and two transfers of a minute make 2:30:00.
        (
            100 / 60,
            {"time": "30", "max_requeues": 0},
            "executor.time=30, executor.max_requeues=0: the run takes 80 minutes at least (about 100 on h100-80g) and "
            "gets 30 minutes: it ends unfinished (30 is minutes to Slurm: "
            "30:00:00 is hours); set executor.time=2:30:00, "
            "or set executor.max_requeues=none",
        ),
        (
            10,
            {"time": "1:00:00", "max_requeues": 2},
            "executor.time=1:00:00, executor.max_requeues=2: the run takes "
            "480 minutes at least (about 600 on h100-80g) "
            "and gets 3 starts of 60 minutes: it ends unfinished; set executor.time=13:00:00, or set "
            "executor.max_requeues=none",
        ),
        # Going on for ever is no way out of a limit that a start and a checkpoint fill.
        (
            10,
            {"time": "04:00", "max_requeues": 3},
            "executor.time=04:00, executor.max_requeues=3: the run takes 480 minutes at least (about 600 on h100-80g) "
            "and gets 4 starts of 4 minutes: it ends unfinished (04:00 is minutes and seconds to Slurm: 04:00:00 is "
            "hours); set executor.time=13:00:00",
        ),
        (
            10,
            {"time": "5"},
            "executor.time=5: a start and a checkpoint take about 3 minutes of it, and the run takes 480 minutes at "
            "least (about 600 on h100-80g) (5 is minutes to Slurm: 5:00:00 is hours); set executor.time=13:00:00",
        ),
        (
            10,
            {"time": "8"},
            "executor.time=8: the run takes 480 minutes at least (about 600 "
            "on h100-80g), which makes 60 starts of 8 minutes or more "
            "(8 is minutes to Slurm: 8:00:00 is hours); set executor.time=13:00:00",
        ),
        # Requeues without end would do it; eight hours may be meant. 24 minutes at least are three times 8.
        (
            0.5,
            {"time": "8"},
            "executor.time=8: the run takes 24 minutes at least (about 30 on h100-80g), which makes 3 starts of "
            "8 minutes or more (8 is minutes to Slurm: 8:00:00 is hours); set executor.time=1:00:00",
        ),
        (
            100 / 60,
            {"time": "30:00", "max_requeues": 2},
            "executor.time=30:00: the run takes 80 minutes at least (about 100 on h100-80g), which makes 3 starts of "
            "30 minutes or more (30:00 is minutes and seconds to Slurm: 30:00:00 is hours); set executor.time=2:30:00",
        ),
    ],
)
def test_a_time_limit_below_the_estimate(planned, hours, fields, line):
    assert told(planned(hours), "time-limit", **fields) == [("warning", line)]


@pytest.mark.parametrize(
    ("hours", "fields"),
    [
        (100 / 60, {"time": "81", "max_requeues": 0}),  # the estimate may be a quarter too long
        (100 / 60, {"time": "0:30:00"}),
        (100 / 60, {"time": "0:30:00", "max_requeues": 2}),
        (10, {"time": "240"}),
        (0.5, {"time": "24"}),
        (10, {"time": "0", "max_requeues": 0}),
        (10, {"max_requeues": 0}),
        (10, {"time": "8:00:00"}),
        (400, {"time": "1-0"}),
        (100 / 60, {"time": "30", "max_requeues": 0, "gpu_request": "none"}),
    ],
)
def test_a_time_limit_that_may_do(planned, hours, fields):
    assert told(planned(hours), "time-limit", **fields) == []


def test_a_time_limit_of_a_second_start_is_a_note(planned):
    ((severity, line),) = told(planned(100 / 60), "time-limit", time="41")  # 80 minutes at least
    assert severity == "note" and "which makes 2 starts of 41 minutes or more (41 is minutes to Slurm" in line
    ((severity, _),) = told(planned(100 / 60), "time-limit", time="39")
    assert severity == "warning"


def test_gpus_that_are_planned_and_not_asked_for(planned):
    assert told(planned(1, nodes=2), "gpu-unrequested", gpu_request="none", gpu_model="h100") == [
        (
            "note",
            "executor.gpu_request=none, executor.gpu_model=h100: the job asks for no GPU, and its plan is one of "
            "16 GPUs: only nodes that give them unasked have any; set executor.gpu_request=gres, or set "
            "trainer.accelerator=cpu",
        )
    ]
    on_cpu = dataclasses.replace(planned(1), on_cpu=True)
    assert told(on_cpu, "gpu-unrequested", gpu_request="none") == []
    for silent in ({}, {"gpu_request": "none", "sbatch": {"gpus-per-task": "1"}}):
        assert told(planned(1), "gpu-unrequested", **silent) == []


def test_gpus_that_a_variable_hides_from_ranks(planned):
    eight = ",".join(map(str, range(8)))

    def lines(place, value, run):
        found = place(env={"CUDA_VISIBLE_DEVICES": value}).advise(run)
        return [(each.severity, each.line()) for each in found if each.code == "gpus-hidden"]

    told = "shows {} of a node, and each of a node's ranks takes one: 8 in all; leave it out, or name as many"
    for value, count in (("0", "1 GPU"), ("0,1,-1,3", "2 GPUs"), ("NoDevFiles", "0 GPUs")):
        expected = [("warning", f"executor.env.CUDA_VISIBLE_DEVICES={value}: {told.format(count)}")]
        assert lines(SlurmExecutor, value, planned(1)) == lines(LocalExecutor, value, planned(1)) == expected
    assert lines(SlurmExecutor, eight, planned(1)) == lines(SlurmExecutor, f"{eight},8", planned(1)) == []
    assert lines(SlurmExecutor, "0", dataclasses.replace(planned(1), on_cpu=True)) == []


def test_a_run_on_processors_and_one_that_goes_on_have_no_estimate(planned):
    short = {"time": "30", "max_requeues": 0, "signal_delay_s": 60}
    on_cpu = dataclasses.replace(planned(10), on_cpu=True)
    assert told(on_cpu, "time-limit", "signal-delay", **short) == []
    found = tuple(SlurmExecutor(**short).advise(planned(10)))
    assert {each.code for each in found} == {"time-limit", "signal-delay", "cores", "hub-download"}
    gone_on = plan_going_on(dataclasses.replace(planned(10), findings=found))
    assert {each.code for each in gone_on.findings} == {"signal-delay", "cores", "hub-download"}


def test_a_checkpoint_that_takes_longer_than_the_signal_leaves(planned):
    # 60 GB at 1 GB/s and a step of 10 s; a quarter more, in half minutes.
    (found,) = told(planned(10), "signal-delay", time="4:00:00", signal_delay_s=60)
    assert found == (
        "warning",
        "executor.signal_delay_s=60: a step and a checkpoint of 55.9 GiB "
        "take about 70 s, at 1 GB/s from the node: what "
        "is not saved by the time limit is lost; set executor.signal_delay_s=90",
    )
    assert told(planned(10), "signal-delay", signal_delay_s=60) == [found]
    ((_, line),) = told(planned(10, nodes=2), "signal-delay", time="4:00:00", signal_delay_s=30)
    assert "take about 40 s, at 1 GB/s from each of 2 nodes" in line
    for silent in ({"signal_delay_s": 70}, {"time": "13:00:00", "signal_delay_s": 60}, {"time": "0"}):
        assert told(planned(10), "signal-delay", **silent) == []
    assert told(planned(0.5), "signal-delay", signal_delay_s=60) == []


def test_a_name_of_gpus_that_stands_for_no_known_type():
    def told(name, gpu=None):
        place = SlurmExecutor(gpu_model=name, gpu=gpu)
        found = plan(llava.finetune(), place).notes
        return [each.line() for each in found if each.code == "gpu-unknown"]

    assert told("h1000") == [
        "executor.gpu_model=h1000: no type of GPU is known by this name (did you mean h100-80g, a100-40g, a100-80g?), "
        "so memory and time are those of h100-80g; name it with --gpu, which Slurm is not told"
    ]
    assert told("h100") == told(None) == told("h1000", gpu="a100-80g") == []


def test_a_name_of_the_planner_in_the_place_of_the_clusters(monkeypatch, tmp_path):
    def told(**fields):
        found = plan(llava.finetune(), SlurmExecutor(**fields)).notes
        return [each.line() for each in found if each.code == "gpu-name"]

    monkeypatch.setenv("PATH", str(tmp_path))
    way = "is probably not what the cluster calls it, which sinfo -o %G shows; set executor.gpu=a100-40g"
    (line,) = told(gpu_model="a100-40g")
    assert line == f"executor.gpu_model=a100-40g: --gres=gpu:a100-40g {way} executor.gpu_model=a100"
    (line,) = told(gpu_model="a100-40g", gpu_request="gpus-per-node")
    assert f": --gpus-per-node=a100-40g {way}" in line
    for silent in ("a100", "l40s", "rtx-4090", "A100_40GB"):
        assert told(gpu_model=silent) == []
    assert told(gpu_model="a100", gpu="a100-40g") == told(gpu_model="a100-40g", gpu_request="none") == told() == []
    # Where a cluster can be asked, a launch compares the name with the cluster's.
    (tmp_path / "sinfo").write_text("#!/bin/sh\n")
    (tmp_path / "sinfo").chmod(0o755)
    assert told(gpu_model="a100-40g") == []


def test_the_cores_of_a_rank_and_its_loaders(planned, monkeypatch):
    run = planned(1)  # of four processes that load
    assert told(run, "cores") == [
        (
            "note",
            "executor.cpus_per_task=none, data.num_workers=4: where the partition "
            "has no default of its own, Slurm gives "
            "a rank one core, which the rank and the 4 processes that load its samples share; set "
            "executor.cpus_per_task=5",
        )
    ]
    assert told(run, "cores", cpus_per_task=4) == [
        (
            "warning",
            "executor.cpus_per_task=4, data.num_workers=4: the rank and the 4 processes that load its samples share 4 "
            "cores; set executor.cpus_per_task=5",
        )
    ]
    for given in ({"cpus_per_task": 5}, {"exclusive": True}, {"sbatch": {"cpus-per-gpu": "8"}}):
        assert told(run, "cores", **given) == []
    monkeypatch.setenv("SBATCH_CPUS_PER_TASK", "8")
    assert told(run, "cores") == []


def test_models_that_nobody_has_fetched(planned, tmp_path):
    fields = [
        "model.language.from_pretrained=lmsys/vicuna-7b-v1.5",
        "model.vision.from_pretrained=openai/clip-vit-large",
    ]
    found = told(planned(1), "hub-download")
    assert [line.partition(":")[0] for _, line in found] == [fields[0], f"{fields[1]}-patch14-336"]
    assert (
        f"is not in {tmp_path}/hub/hub: " in found[0][1] and "; hf download lmsys/vicuna-7b-v1.5 first" in found[0][1]
    )
    folder = tmp_path / "shared/hub/models--lmsys--vicuna-7b-v1.5"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    shared = {"HF_HOME": str(tmp_path / "shared")}
    assert len(told(planned(1), "hub-download", env=shared)) == 2  # config.json alone is no model
    (folder / "snapshots/abc/pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "1.bin", "b": "2.bin"}}')
    (folder / "snapshots/abc/1.bin").write_text("")
    assert len(told(planned(1), "hub-download", env=shared)) == 2  # the fetch ended between two files
    (folder / "snapshots/abc/2.bin").write_text("")
    (folder / "blobs/123.incomplete").write_text("")
    assert len(told(planned(1), "hub-download", env=shared)) == 2
    (folder / "blobs/123.incomplete").unlink()
    ((severity, line),) = told(planned(1), "hub-download", env=shared)
    assert severity == "note" and line.startswith(fields[1])


def test_models_of_unknown_sizes_are_not_compared(planned, tmp_path):
    run, unseen = planned(1), ", and its weights are not compared with the recipe; hf download "
    assert [unseen in line for _, line in told(run, "hub-download")] == [False, False]  # these sizes are built in
    language = dataclasses.replace(run.recipe.model.language, from_pretrained="owner/qwen")
    model = dataclasses.replace(run.recipe.model, language=language)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, model=model))
    assert [unseen in line for _, line in told(run, "hub-download")] == [True, False]
    folder = tmp_path / "hub/hub/models--owner--qwen"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/config.json").write_text("{}")
    assert [unseen in line for _, line in told(run, "hub-download")] == [False, False]


@pytest.mark.parametrize(("value", "is_off"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_ranks_that_may_not_ask_the_hub(planned, value, is_off):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        lines = [line for _, line in told(planned(1), "hub-download", env={name: value})]
        assert ["the ranks cannot fetch it" in line for line in lines] == [is_off, is_off]
        assert ["the ranks fetch it as they start" in line for line in lines] == [not is_off, not is_off]


def test_a_dry_run_and_a_pipeline_tell_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--executor", "slurm", "executor.time=30", "executor.max_requeues=0", "--dry-run"]
    assert main(["llava.finetune", *words, "--format", "yaml"]) == 0
    told = capsys.readouterr().err
    assert "\nnote: executor.cpus_per_task=none, " in told and "\nwarning: executor.time=30, " in told
    assert "refused: file-missing" in told and "hub-download\n" not in told
    main(["llava.pipeline", *words])
    told = capsys.readouterr().err
    assert "note: pretrain, finetune: executor.cpus_per_task=none, " in told
    assert "warning: finetune: executor.time=30, " in told


def test_other_places_have_nothing_to_say():
    for place in (LocalExecutor(), DockerExecutor(image="image")):
        assert [*place.advise(plan_job(llava.finetune(), SlurmExecutor()).plan)] == []


@pytest.mark.parametrize("memory", ["64", "512", "4095"])
def test_memory_without_a_unit_is_megabytes(memory):
    with pytest.raises(
        UserError, match=rf"^executor.memory={memory}: {memory} means {memory} MB in Slurm: write {memory}G"
    ):
        SlurmExecutor(memory=memory)


@pytest.mark.parametrize("memory", ["0", "64G", "64M", "4096", "512000"])
def test_memory_that_is_meant(memory):
    assert SlurmExecutor(memory=memory).memory == memory


FIELDS = ["partition=gpu", "time=8:00:00", "cpus_per_task=5", "memory=512G", "gpu_model=a100-80g"]
REVIEWED = [
    "llava.pipeline",
    "--executor",
    "slurm",
    *(f"executor.{field}" for field in FIELDS),
    "evaluate.data=q.jsonl",
]
"""Two trainings on two nodes, and two stages of one process."""


@pytest.fixture
def reviewed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def review(*words):
        main([*REVIEWED, "trainer.num_nodes=2", "pretrain.data.micro_batch_size=8", *words, "--dry-run"])
        return capsys.readouterr()

    return review


def test_the_dry_run_of_a_pipeline_shows_what_each_stage_asks_for(reviewed):
    trains = "2 nodes, each with 8 a100-80g GPUs, 40 cores, 512G of memory; time limit 8:00:00"
    tool = "1 node with 1 a100-80g GPU, 5 cores, 512G of memory; time limit 8:00:00"
    lines = [line for line in reviewed().out.splitlines() if line.startswith("  job ")]
    assert lines == [f"  job     {asked}" for asked in (trains, trains, tool, tool)]
    page = reviewed("--format", "html").out
    assert page.count(f"Its job asks for {trains}.") == 2 and page.count(f"Its job asks for {tool}.") == 2
    (line, *_) = [line for line in reviewed("executor.memory=0").out.splitlines() if line.startswith("  job ")]
    assert ", all of its memory; " in line
    (line, *_) = [line for line in reviewed("executor.time=8").out.splitlines() if line.startswith("  job ")]
    assert line.endswith("; time limit 8 (8 minutes)")
    (line, *_) = [line for line in reviewed("executor.time=90:30").out.splitlines() if line.startswith("  job ")]
    assert line.endswith("; time limit 90:30 (91 minutes)")
    bare = SlurmExecutor(gpu_request="none").asks_for(plan(llava.finetune()).layout)
    assert bare == "1 node with cores by default, memory by default; time limit by default"
    assert LocalExecutor().asks_for(plan(llava.finetune()).layout) == ""


def test_the_scripts_of_a_pipeline(reviewed):
    shown = reviewed("--script")
    stages = re.split(r"^# (\w+)(?:, after (\w+))?: Batch script of Slurm\n", shown.out, flags=re.MULTILINE)
    assert stages[0] == ""
    assert stages[1::3] == ["pretrain", "finetune", "export", "evaluate"]
    assert stages[2::3] == [None, "pretrain", "finetune", "export"]
    for name, script, nodes, ranks in zip(stages[1::3], stages[3::3], (2, 2, 1, 1), (8, 8, 1, 1), strict=True):
        options = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
        wanted = {f"nodes={nodes}", f"ntasks-per-node={ranks}", f"gres=gpu:a100-80g:{ranks}", "mem=512G", "time=480"}
        assert wanted <= options and f"job-name={name}" in options
        assert script.startswith("#!/bin/bash\n") and f"/stages/{name}/slurm\n" in script
    assert shown.err.endswith("note: --dry-run wrote and started nothing\n")
    refused = reviewed("--script", "pretrain.data.micro_batch_size=7")
    assert refused.out == "" and "error: pretrain: data.global_batch_size=256" in refused.err
