"""Sweeps: what varies, what is refused, and the table at the end."""

import itertools
import re
import time

import pytest

from executors import LocalExecutor, Run, RunStatus, find_run, plan_pipeline, run_pipeline
from executors.pipelines.directory import StageStatus, stage_statuses, stage_table
from neva_recipes.cli.main import main
from neva_recipes.config import load_recipe, recipe_to_yaml, set_field
from neva_recipes.sweep import grid, split_choices, sweep
from neva_recipes.table import table_lines
from tests.pipelines.recipes import make_recipe


def points(**choices):
    names = [name.replace("__", ".") for name in choices]
    found = []
    for values in itertools.product(*choices.values()):
        recipe = make_recipe()
        for name, value in zip(names, values, strict=True):
            set_field(recipe, name, value)
        found.append((dict(zip(names, values, strict=True)), recipe))
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1e-5,2e-5", ["1e-5", "2e-5"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("[1,2]", ["[1,2]"]),
        ("a, b", ["a", "b"]),
        (" [1, 2] , [3]", ["[1, 2]", "[3]"]),
        ('"a,b.json", " c"', ["a,b.json", " c"]),
        ("a,", ["a", ""]),
        ("", [""]),
        ('"a,b.json",c.json', ["a,b.json", "c.json"]),
        ("c,'d,e'", ["c", "d,e"]),
        ("'a,b'", ["a,b"]),
        ('"a",', ["a", ""]),
        ('"a,b', ['"a', "b"]),
        ("it's,that's", ["it's", "that's"]),
        ("[[1,2],[3]],none", ["[[1,2],[3]]", "none"]),
    ],
)
def test_commas_part_values_but_not_inside_brackets_and_quotes(text, values):
    assert split_choices(text) == values


def test_the_grid_is_every_combination():
    made = grid({"a": ["1", "2", "3"], "b": ["x", "y"]})
    assert [tuple(point.values()) for point in made] == list(itertools.product("123", "xy"))


def test_a_failed_point_does_not_stop_the_others_and_resume_runs_it_alone(runs_dir, starts, capsys):
    (runs_dir / "fail 2").touch()
    pipeline = sweep("lr", points(optim__lr=["1e-5", "2e-5", "4e-5"]))
    run = run_pipeline(pipeline, LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    assert starts() == ["1", "2", "3"]
    table = [line.split() for line in stage_table(stage_statuses(run.path))]
    assert table[0] == ["POINT", "optim.lr", "STATE", "STEP", "LOSS", "VAL", "LOSS", "TIME"]
    assert [row[:-1] for row in table[1:4]] == [
        ["1", "1e-5", "succeeded", "2", "1.25", "0.75"],
        ["2", "2e-5", "failed", "-", "-", "-"],
        ["3", "4e-5", "succeeded", "2", "1.25", "0.75"],
    ]
    (runs_dir / "fail 2").unlink()
    # The point is mended by itself, as what it has become.
    point = find_run(f"{run.name}/2", runs_dir)
    recipe = load_recipe(point.path / "recipe.yaml")
    set_field(recipe, "optim.lr", "3e-5")
    assert run.status().state == "failed"
    point.resume(recipe, detach=True)
    assert point.wait() == 0
    # The sweep is what its points are, in every place that tells of it.
    status = run.status()
    assert (status.state, status.exit_code, status.reason, run.wait()) == ("succeeded", 0, None, 0)
    for name in ([], [run.name]):
        capsys.readouterr()
        assert main(["status", *name, "--runs-dir", str(runs_dir)]) == 0
        shown = capsys.readouterr().out.replace(str(runs_dir), "")
        assert "succeeded" in shown and "failed" not in shown
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["1", "2", "3", "2"]
    shown = [line.split()[1:3] for line in stage_table(stage_statuses(run.path))[1:]]
    assert shown == [["1e-5", "succeeded"], ["3e-05", "succeeded"], ["4e-5", "succeeded"]]
    assert "lr: 4.0e-05" in (run.path / "stages" / "3" / "recipe.yaml").read_text()


def test_two_hundred_points_are_all_planned_and_written(runs_dir, tmp_path, record_testsuite_property):
    rates = [f"{number}e-6" for number in range(1, 201)]
    pipeline = sweep("lr", points(optim__lr=rates))
    started = time.perf_counter()
    planned = plan_pipeline(pipeline, LocalExecutor(), runs_dir=runs_dir)
    record_testsuite_property("planning seconds", time.perf_counter() - started)
    assert planned.problems == ()
    started = time.perf_counter()
    planned.write_stages(tmp_path / "written", tmp_path / "written")
    record_testsuite_property("writing seconds", time.perf_counter() - started)
    folders = sorted((tmp_path / "written" / "stages").iterdir())
    assert [folder.name for folder in folders] == [f"{number:03}" for number in range(1, 201)]
    for (_, recipe), folder in zip(points(optim__lr=rates), folders, strict=True):
        assert (folder / "recipe.yaml").read_text() == recipe_to_yaml(recipe)


def test_a_dry_run_shows_every_point(runs_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(make_recipe()))
    words = ["trainer.devices=1,2", "optim.lr=1e-5,2e-5"]
    assert main(["mine.yaml", *words, "--sweep", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mine.sweep: 4 points, 1 to 2 processes each",
        "POINT  trainer.devices  optim.lr",
        "1      1                1e-5",
        "2      1                2e-5",
        "3      2                1e-5",
        "4      2                2e-5",
        "  memory  0.0 MiB of weights, gradients and optimizer in a process",
        "  tokens  384 a step",
    ]
    data = f"{__file__},{tmp_path}/{'long' * 20}.txt"
    assert main(["mine.yaml", f"data.data_path={data}", "--sweep", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:3] == ["POINT", f"1      data.data_path={__file__}"]
    _, missing, refused, _ = captured.err.splitlines()
    assert missing.startswith(f"note: 2 (data.data_path={tmp_path}/long")
    assert refused == "note: a launch from this machine would be refused: file-missing"
    # What several points lack is told once, and what one of them lacks with its name.
    words = [f"data.data_path={__file__},gone.txt", "optim.lr=1e-5,2e-5"]
    assert main(["mine.yaml", *words, "--sweep", "--dry-run"]) == 0
    _, missing, _, _ = capsys.readouterr().err.splitlines()
    assert missing == "note: data.data_path=gone.txt: no such file; set it to the one to read (2 of 4 points)"
    assert main(["mine.yaml", *words, "--sweep"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [missing.replace("note", "error")]
    assert list(runs_dir.iterdir()) == []


def test_a_look_at_a_resume_says_that_this_machine_would_refuse_it(runs_dir, starts, monkeypatch, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (runs_dir / "fail 2").touch()
    run = run_pipeline(sweep("lr", points(optim__lr=["1e-5", "2e-5"])), LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    words = ["resume", str(run.path), "--dry-run"]
    assert main(words) == 0
    goes_on, closing = capfd.readouterr().err.splitlines()
    assert goes_on == "note: a resume would go on with 2" and closing == "note: --dry-run wrote and started nothing"
    recipe = run.path / "stages" / "2" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("accelerator: auto", "accelerator: gpu"))
    assert main(words) == 0
    assert capfd.readouterr().err.splitlines() == [
        goes_on,
        "note: 2: trainer.accelerator=gpu: this machine has no GPU; "
        "take a place with GPUs (--executor slurm, or a profile), or cpu",
        "note: a launch from this machine would be refused: no-gpu",
        closing,
    ]
    assert main(words[:-1]) == 2  # and so it does
    assert capfd.readouterr().err.startswith("error: 2: trainer.accelerator=gpu: this machine has no GPU")
    recipe.write_text(recipe.read_text().replace("accelerator: gpu", "accelerator: auto"))
    recipe.write_text(re.sub(r"data_path: .*", "data_path: /gone.txt", recipe.read_text(), count=1))
    assert main(words) == 0
    _, missing, refused, _ = capfd.readouterr().err.splitlines()
    assert missing.startswith("note: 2: data.data_path=/gone.txt: no such file")
    assert refused == "note: a launch from this machine would be refused: file-missing"
    assert main(words[:-1]) == 2
    assert capfd.readouterr().err.startswith("error: 2: data.data_path=/gone.txt: no such file")
    assert starts() == ["1", "2"]


def test_a_sweep_says_at_its_start_what_its_points_are(runs_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(make_recipe()))
    words = ["mine.yaml", "--sweep", "--runs-dir", str(runs_dir)]
    assert main([*words, "optim.lr=1e-5,2e-5"]) == 0
    out, err = capfd.readouterr()
    assert err.splitlines()[:4] == [
        "mine.sweep: 2 points, 1 process each",
        "POINT  optim.lr",
        "1      1e-5",
        "2      2e-5",
    ]
    # Its lines are behind the number alone: what that is, is said once, before them.
    lines = out.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("--- 2 (optim.lr=2e-5) starts: ")]
    assert len(starts) == 1 and starts[0] < lines.index("[2] 2 works") < lines.index("--- 2 (optim.lr=2e-5) succeeded")

    rates = ",".join(f"{number}e-6" for number in range(1, 33))
    assert main([*words, f"optim.lr={rates}", "--parallel", "4", "--detach", "--name", "many"]) == 0
    out, err = capfd.readouterr()
    assert err.splitlines() == [
        "many: 32 points, 1 process each",
        "POINT  optim.lr",
        *(f"{number:02}     {number}e-6" for number in range(1, 12)),
        "... and 21 more",
    ]
    assert find_run("many", runs_dir).wait() == 0

    # What does not start is told in one line.
    assert main([*words, "data.data_path=absent.json,gone.json"]) == 2
    err = capfd.readouterr().err
    assert err.count("error: ") == 1 and "POINT" not in err


def test_a_list_that_a_sweep_takes_apart_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(make_recipe()))
    for name in ("a.txt", "b c.txt", "d.txt"):
        (tmp_path / name).write_text("text\n")

    def notes(*words):
        main(["mine.yaml", *words, "--sweep", "--dry-run"])
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        return [line for line in told if "takes a list" in line]

    (line,) = notes("data.data_path=a.txt,b c.txt", "optim.lr=1e-5,2e-5")
    together = "data.data_path=[a.txt,b c.txt]"
    told = f"each point gets one of 2 values; '{together}' keeps them together"
    assert line == f"note: data.data_path takes a list: {told}"
    # What it says is so: the files stay together, and there is nothing to tell.
    assert notes(together, "optim.lr=1e-5,2e-5") == []
    assert notes("data.data_path=[a.txt,d.txt],[d.txt,a.txt]") == []
    assert notes("data.data_path=[a.txt,d.txt],a.txt") == []
    assert notes("optim.lr=1e-5,2e-5") == []


WRONG = {
    ("optim.lr=1e-5",): "--sweep: no field of the recipe has several values: write optim.lr=1e-5,2e-5",
    ("executor.grace_seconds=1,2",): "--sweep: no field of the recipe has several values",
    ("executor.grace_seconds=1,2", "optim.lr=1,2"): "executor.grace_seconds='1,2': expected",
    ("optim.lr=1e-5,x",): "point optim.lr=x: optim.lr='x': expected a number > 0",
    ("optim.lr=1e-5,",): "point optim.lr=: optim.lr='': expected a number > 0",
    ("optim.lr=1e-5,1e-5",): "--sweep: optim.lr=1e-5 and optim.lr=1e-5 are the same point",
    ("trainer.seed=1,2", "optim.lr=1e-3,0.001"): "--sweep: trainer.seed=1, optim.lr=1e-3 and trainer.seed=1, "
    "optim.lr=0.001 are the same point",
    ("size=7b,14b",): "point size=14b: gpt.pretrain size='14b': expected one of",
    ("optim.lr=" + ",".join(map(str, range(1, 101))), "trainer.seed=" + ",".join(map(str, range(11)))): "--sweep: 1100 "
    "points (100 of optim.lr x 11 of trainer.seed): at most 1000 are started at once",
    ("optim.lx=1,2",): "point optim.lx=1: optim.lx: no such field",
    ("data.micro_batch_size=1,3", "data.global_batch_size=8", "optim.lr=1,2"): "3 (data.micro_batch_size=3, "
    "optim.lr=1): ",
}


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:50])
def test_a_mistake_in_any_point_stops_all_in_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["gpt.pretrain", "size=tiny", *words, "--sweep"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {WRONG[words]}") or (len(words) > 1 and "(and " in line)
    assert not (tmp_path / "runs").exists()


def test_reasons_that_many_points_share_are_told_once(tmp_path):
    def stage(number, state, reason):
        status = RunStatus(state, None, reason, None, None, None, 1)
        return StageStatus(f"{number:03}", {"n": str(number)}, state, Run(tmp_path), status, None, None)

    failed = [stage(number, "failed", "rank 0: no space left") for number in range(1, 101)]
    queued = [stage(number, "queued", f"Slurm job 7_{number} waits: Resources") for number in range(101, 201)]
    assert stage_table([*failed, stage(0, "lost", "gone"), *queued])[202:] == [
        "001, 002, 003 and 97 more: rank 0: no space left",
        "000: gone",
        "101: Slurm job 7_101 waits: Resources",
        "102: Slurm job 7_102 waits: Resources",
        "103: Slurm job 7_103 waits: Resources",
        "97 more are queued",
    ]


def test_tables_of_80_columns():
    head, rows = ["POINT", "STATE", "STEP"], [["1", "succeeded", "3"], ["2", "failed", "13"]]
    assert list(table_lines([head, *rows], 2, [{"lr": "1e-5", "a": "日本"}, {"lr": "2", "a": "dä"}])) == [
        "POINT  lr    a     STATE      STEP",
        "1      1e-5  日本  succeeded     3",
        "2      2     dä    failed       13",
    ]
    long = "/long" * 12
    assert list(table_lines([head, *rows], 2, [{"lr": "1", "path": long}, {"lr": "1", "path": "/b"}])) == [
        "POINT  STATE      STEP",
        "1      succeeded     3",
        f"       lr=1, path={long}",
        "2      failed       13",
        "       lr=1, path=/b",
    ]
    name = "name" * 20
    assert list(table_lines([head, [name, "failed", "1"], ["段階", "failed", "1"]], 2)) == [
        "POINT  STATE   STEP",
        name,
        "       failed     1",
        "段階   failed     1",
    ]
