"""Pipelines that run, fail, are killed and go on."""

import contextlib
import json
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import executors
from executors import LocalExecutor, Pipeline, Stage, find_run, run_pipeline
from executors.pipelines.directory import stage_statuses
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import RunError, config
from tests.pipelines.recipes import make_recipe
from tests.waiting import wait_for

PATIENCE = 180.0
HOST = socket.gethostname()


def states(run):
    return {stage.name: stage.state for stage in stage_statuses(run.path)}


def processes_of(text):
    """Return numbers of the processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_stages_run_in_order_with_what_the_ones_before_made(four, runs_dir, starts, capfd):
    run = run_pipeline(four, LocalExecutor(), runs_dir)
    assert run.wait() == 0
    assert starts() == ["a", "b", "c", "d"]
    assert states(run) == dict.fromkeys("abcd", "succeeded")
    tool = json.loads((run.path / "stages" / "d" / "tool.json").read_text())
    assert tool["arguments"] == [f"{run.path}/stages/b", f"{run.path}/stages/d/exported"]
    printed = capfd.readouterr().out.splitlines()
    assert "[a] a works" in printed and "--- d succeeded" in printed
    assert printed[-4].split() == ["a", "succeeded", "2", "1.25", "0.75", printed[-4].split()[-1]]
    # Threads are shared out for the ranks of a stage, not for the process of the pipeline.
    assert (run.path / "stages" / "a" / "result").read_text() == str(len(os.sched_getaffinity(0)))
    assert list(find_run(f"{run.name}/c", runs_dir).logs()) == ["c works"]
    assert [found.name for found in executors.list_runs(runs_dir)] == [run.name]
    with pytest.raises(RunError, match="has no stage 'x': expected one of a, b, c, d"):
        find_run(f"{run.name}/x", runs_dir)


def test_a_pipeline_that_has_not_succeeded_is_an_error_for_python_if_asked_for(four, runs_dir, capfd):
    (runs_dir / "fail b").touch()
    with pytest.raises(RunError, match=r"^run four-\S+ failed: b failed"):
        run_pipeline(four, LocalExecutor(), runs_dir, check=True)
    (run,) = executors.list_runs(runs_dir)
    with pytest.raises(RunError, match=f"^run {run.name} failed: b failed"):
        executors.resume_pipeline(run, check=True)
    (runs_dir / "fail b").unlink()
    capfd.readouterr()
    executors.resume_pipeline(run, check=True)
    assert capfd.readouterr().err.splitlines()[-1] == f"{run.name} succeeded: {run.path}"


def test_an_interrupt_of_a_pipeline_reaches_python_once_its_stages_have_ended(four, runs_dir, starts):
    (runs_dir / "hold a").touch()

    def interrupt():
        wait_for(lambda: (runs_dir / "starts").exists())
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt, match="cancelled"):
        pool.submit(interrupt)
        run_pipeline(four, LocalExecutor(), runs_dir)
    (run,) = executors.list_runs(runs_dir)
    assert run.status().state == "cancelled" and starts() == ["a"]
    assert "running" not in states(run).values()


def test_a_failed_stage_stops_what_depends_on_it_and_resuming_runs_only_what_is_not_done(four, runs_dir, starts):
    (runs_dir / "fail b").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    assert run.status().reason == "b failed: rank 0 exited with code 3; not run: d"
    assert states(run) == {"a": "succeeded", "b": "failed", "c": "succeeded", "d": "not run"}
    assert starts() == ["a", "b", "c"]
    run.resume(detach=True)
    assert run.wait() == 3
    assert starts() == ["a", "b", "c", "b"]
    (runs_dir / "fail b").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "b", "c", "b", "b", "d"]
    assert states(run) == dict.fromkeys("abcd", "succeeded")
    run.resume(detach=True)
    assert run.wait() == 0
    assert len(starts()) == 6


def test_stages_that_nothing_orders_run_at_once_if_asked(runs_dir, starts):
    (runs_dir / "hold a").touch()
    (runs_dir / "hold b").touch()
    stages = [Stage(name, make_recipe()) for name in "abc"]
    run = run_pipeline(Pipeline("p", stages), LocalExecutor(), runs_dir, parallel=2, detach=True)
    wait_for(lambda: sorted(starts()) == ["a", "b"])
    wait_for(lambda: states(run) == {"a": "running", "b": "running", "c": "waiting"})
    (runs_dir / "hold a").unlink()
    wait_for(lambda: starts()[2:] == ["c"])
    (runs_dir / "hold b").unlink()
    assert run.wait() == 0


def test_cancel_ends_the_stages_and_resume_goes_on(four, runs_dir, starts):
    (runs_dir / "hold b").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    wait_for(lambda: starts()[1:] == ["b"])
    run.cancel()
    assert run.status().state == "cancelled"
    assert states(run) == {"a": "succeeded", "b": "cancelled", "c": "not run", "d": "not run"}
    wait_for(lambda: not processes_of(str(run.path)))
    (runs_dir / "hold b").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "b", "b", "c", "d"]


def test_asked_to_save_the_stages_that_train_do_and_the_others_are_cancelled(four, runs_dir, starts):
    (runs_dir / "hold b").touch()
    (runs_dir / "hold d").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    wait_for(lambda: starts()[1:] == ["b"])
    run.cancel(save=True)
    status = run.status()
    assert (status.state, status.exit_code, status.reason) == ("cancelled", 75, "stopped on request")
    assert states(run) == {"a": "succeeded", "b": "cancelled", "c": "not run", "d": "not run"}
    assert find_run("four/b", runs_dir).status().exit_code == 75
    assert find_run("four/b", runs_dir).newest_checkpoint() is not None
    (runs_dir / "hold b").unlink()
    run.resume(detach=True)
    wait_for(lambda: starts() == ["a", "b", "b", "c", "d"])
    with pytest.raises(
        RunError, match=r"run four-[\d-]+/d trains no recipe and has nothing to save: cancel it without --save"
    ):
        find_run("four/d", runs_dir).cancel(save=True)
    run.cancel(save=True)
    assert (run.status().state, run.status().exit_code) == ("cancelled", 75)
    assert states(run) == {"a": "succeeded", "b": "succeeded", "c": "succeeded", "d": "cancelled"}


@pytest.mark.parametrize("victim", ["driver", "supervisor"])
def test_a_killed_pipeline_leaves_nothing_and_can_be_resumed(victim, four, runs_dir, starts):
    (runs_dir / "hold b").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    wait_for(lambda: starts()[1:] == ["b"])
    supervisor = json.loads((run.path / "state.json").read_text())["supervisor"]["pid"]
    (driver,) = processes_of(f"executors.pipelines.driver\0{run.path}")
    os.kill(driver if victim == "driver" else supervisor, signal.SIGKILL)
    wait_for(lambda: not processes_of(str(run.path)))
    assert run.status().state in ("failed", "lost")
    assert states(run)["b"] in ("lost", "failed", "cancelled")
    (runs_dir / "hold b").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "b", "b", "c", "d"]


def test_a_stage_can_be_cancelled_by_itself(four, runs_dir, starts):
    (runs_dir / "hold c").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    wait_for(lambda: "c" in starts())
    find_run("four/c", runs_dir).cancel()
    assert run.wait() == 130
    assert run.status().reason == "c cancelled: on request; not run: d"


def test_nothing_of_a_pipeline_in_use_is_changed(four, runs_dir, starts, capfd):
    (runs_dir / "hold a").touch()
    run = run_pipeline(four, LocalExecutor(), runs_dir, detach=True)
    wait_for(starts)
    files = [path for name in ("job.json", "plan.json", "tool.json") for path in run.path.glob(f"stages/*/{name}")]
    before = {path: path.read_bytes() for path in files}
    changes = {"d": {"model": "elsewhere"}}
    for asked in ({"gpu": "h100"}, {"changes": changes}):
        with pytest.raises(RunError, match="is in use, so nothing of it can be changed: wait for its end, or cancel"):
            executors.resume_pipeline(run, **asked)
    for words, name in (([], run.name), (["--detach"], f"{run.name}/a")):
        for look in ([], ["--dry-run"]):
            assert main(["resume", f"{runs_dir}/{name}", *words, *look]) == 2
            assert capfd.readouterr() == ("", f"error: run {name} is in use: running on {HOST}; cancel it first\n")
    assert {path: path.read_bytes() for path in files} == before
    (runs_dir / "hold a").unlink()
    assert run.wait() == 0
    with pytest.raises(RunError, match=r"^d: has succeeded and is not run again, so nothing of it can be changed$"):
        executors.resume_pipeline(run, changes=changes)


def test_a_stage_that_goes_on_from_a_checkpoint_is_not_warned_of_what_it_began_with(runs_dir, tmp_path, capfd):
    said = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi."}]
    (tmp_path / "chats.json").write_text(json.dumps([{"conversations": said}]))
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.tokenizer = str(tmp_path / "chats.json"), "owner/name"
    recipe.model.projector.from_pretrained, recipe.data.group_by_modality_length = None, False
    pipeline = Pipeline("one", Stage("a", recipe))
    warning = "the projector begins from random weights"
    for ending, again in (("stop", False), ("fail", True)):
        (runs_dir / f"{ending} a").touch()
        run = run_pipeline(pipeline, LocalExecutor(), runs_dir, name=ending)
        assert run.wait() != 0 and warning in capfd.readouterr().err
        (runs_dir / f"{ending} a").unlink(missing_ok=True)
        executors.resume_pipeline(run)
        assert run.wait() == 0 and (warning in capfd.readouterr().err) == again


def test_a_stage_whose_input_has_gone_fails_with_the_reason(runs_dir, tmp_path, starts):
    data = tmp_path / "text.txt"
    data.write_text("some text")
    (runs_dir / "hold a").touch()
    recipe = make_recipe()
    recipe.data.data_path = str(data)
    pipeline = Pipeline("p", Stage("a", make_recipe()) >> Stage("b", recipe))
    run = run_pipeline(pipeline, LocalExecutor(), runs_dir, detach=True)
    wait_for(starts)
    data.unlink()
    (runs_dir / "hold a").unlink()
    assert run.wait() == 2
    assert run.status().reason.startswith(f"b failed: data.data_path={data}: no such file")
    data.write_text("some text")
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "b"]


def test_files_in_a_list_that_a_stage_is_still_to_make_do_not_keep_a_pipeline_from_going_on(runs_dir, tmp_path, starts):
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "tokenizer.json").write_text("{}")
    work = {"files": str(tmp_path / "text.txt"), "tokenizer": str(tmp_path / "tokenizer.json")}
    texts = [Stage(name, config(executors.TokenizeText, **work)) for name in ("new", "old")]
    recipe = make_recipe()
    recipe.data.tokenizer = "owner/name"
    recipe.data.data_path = [text.output / "train.idx" for text in texts]
    (runs_dir / "fail new").touch()
    train = Stage("train", recipe)
    run = run_pipeline(Pipeline("p", *(text >> train for text in texts)), LocalExecutor(), runs_dir, detach=True)
    assert run.wait() != 0
    executors.resume_pipeline(run, detach=True)
    assert run.wait() != 0
    assert starts().count("new") == 2


def test_secret_variables_reach_the_stages_and_no_file(runs_dir, tmp_path):
    worker = tmp_path / "instead" / "neva_model" / "worker.py"
    worker.write_text("import os, sys\nsys.exit(0 if os.environ['MY_TOKEN'] == 'hunter2-hunter2' else 4)\n")
    pipeline = Pipeline("p", Stage("a", make_recipe()))
    run = run_pipeline(pipeline, LocalExecutor(env={"MY_TOKEN": "hunter2-hunter2"}), runs_dir, detach=True)
    assert run.wait() == 0
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"hunter2" in path.read_bytes()]


def test_a_resume_needs_room_for_all_that_its_stages_keep(runs_dir, starts, four, monkeypatch, capfd):
    (runs_dir / "fail a").touch()
    run = executors.run_pipeline(four, executors.LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    size = executors.plan_job(make_recipe("a")).plan.disk.checkpoint

    def resume(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
        capfd.readouterr()
        executors.resume_pipeline(run, detach=True)
        return capfd.readouterr().err

    with pytest.raises(RunError) as caught:
        resume(size - 1)
    assert str(caught.value).startswith(f"{run.path}: ") and "a checkpoint takes" in str(caught.value)
    assert "--runs-dir" not in str(caught.value) and starts() == ["a"]
    for count, is_told in ((3.5, True), (4, False)):  # one of each stage, and one that is being written
        told = f"warning: {run.path}: " in (err := resume(int(count * size)))
        assert told == is_told == ("3 checkpoints of 3 runs" in err)
        run.wait()
    assert starts() == ["a"] * 3
