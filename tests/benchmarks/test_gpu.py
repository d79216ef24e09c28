"""The GPU benchmark, at CPU size as a whole and its arithmetic at full size."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from neva_recipes.config import build, load_recipe
from neva_recipes.plan import layout_of

FOLDER = Path(__file__).parents[2] / "benchmarks"
LLAMA_7B_PARAMETERS = 6_738_415_616
H200 = 139.8 * 2**30


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The benchmark at CPU size, run as a user runs it: its report, what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("a benchmark")
    output = folder / "tiny.json"
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--tiny", "--minutes", "60", "--output", str(output)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(output.read_text(encoding="utf-8")), done.stdout, output.with_suffix("")


@pytest.fixture
def module(monkeypatch):
    """A function that imports a module of the benchmark, as the script does."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # the script sets it
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def read_metrics(run):
    with (Path(run) / "metrics" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_every_figure_is_what_the_runs_say(tiny):
    report, _, folder = tiny
    assert [entry["name"] for entry in report["training"]] == [
        "finetune bf16",
        "pretrain bf16",
        "finetune bf16 no recompute",
    ]
    assert report["failed"] == report["skipped"] == []
    for entry in report["training"]:
        rows = read_metrics(entry["run"])
        assert Path(entry["run"]).is_relative_to(folder)
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert entry["loss"] == [row["reduced_train_loss"] for row in rows]
        assert entry["step_seconds"] == [row["step_time"] for row in rows]
        timed = rows[1:]
        tokens = [round(row["tokens_per_second"] * row["step_time"]) for row in timed]
        lengths = [48, 48, 48] if entry["stage"] == "pretrain" else [160, 128, 160]
        assert tokens == [2 * length for length in lengths], "the samples are not as long as they were ordered"
        assert entry["tokens_per_second"] == pytest.approx(sum(tokens) / sum(row["step_time"] for row in timed))

        recipe = build(load_recipe(Path(entry["run"]) / "recipe.yaml"))
        assert recipe.name == f"llava.{entry['stage']}" and recipe.precision.precision == "bf16"
        assert recipe.model.language.freeze == (entry["stage"] == "pretrain")
        assert not (Path(entry["run"]) / "checkpoints").exists(), "a measured run spends its time on checkpoints"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_digits_job_goes_through_all_stages_in_bf16(tiny):
    digits = tiny[0]["digits"]
    assert digits["status"] == "done"
    evaluation = json.loads((Path(digits["runs"]["llava.finetune"]) / "evaluation.json").read_text(encoding="utf-8"))
    assert digits["accuracy"] == evaluation["accuracy"] and evaluation["questions"] == 6
    for name, run in digits["runs"].items():
        recipe = build(load_recipe(Path(run) / "recipe.yaml"))
        assert (recipe.name, recipe.precision.precision) == (name, "bf16")
        assert len(list((Path(run) / "checkpoints").iterdir())) == 1
    log = (Path(digits["runs"]["llava.finetune"]) / "logs" / "joined.log").read_text(encoding="utf-8")
    for part, source in (("language", "gpt.pretrain"), ("projector", "llava.pretrain"), ("vision", "llava.pretrain")):
        assert f"{part}: loaded from {digits['runs'][source]}" in log


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_table_says_what_the_report_says(tiny):
    report, printed, _ = tiny
    lines = printed.split("\n\n", 1)[1].splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for entry in report["training"]:
        (row,) = [line for line in lines if line.startswith(f"{entry['name']}   ")]
        assert f" {entry['tokens_per_second']:,.0f} " in row and row.endswith(f"{entry['loss'][-1]:.3f}")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_case_that_fails_is_reported_and_the_next_goes_on(module, tmp_path):
    cases = module("_cases")
    benchmark = module("gpu").Benchmark(cases.TINY, 60.0, tmp_path / "report.json")
    assert benchmark.run([cases.Case("finetune", "delayed"), cases.Case("pretrain")]) == 1
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    failed, done = report["training"]
    assert failed["status"] == "failed" and done["status"] == "done"
    assert "precision.fp8=hybrid needs a GPU with Transformer Engine" in failed["reason"]
    assert report["failed"] == ["finetune fp8 delayed"]


def test_what_there_is_no_time_for_is_listed(module, tmp_path):
    cases = module("_cases")
    benchmark = module("gpu").Benchmark(cases.TINY, 0.0, tmp_path / "report.json")
    assert benchmark.run([cases.Case("finetune"), "digits"]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["skipped"] == ["finetune bf16", "digits"] and report["training"] == []


def test_full_size_needs_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--output", str(tmp_path / "full.json")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2 and "torch sees no GPU here; --tiny runs without one" in done.stderr


def test_full_size_recipes_are_valid_and_cover_what_is_asked_for(module, tmp_path):
    cases, samples = module("_cases"), module("_samples")
    data = samples.Samples(tmp_path / "a", tmp_path / "b", tmp_path / "images", tmp_path / "tokenizer", 640)
    every_case = [part for part in cases.parts(with_fp8=True) if part != "digits"]
    kinds = {(case.stage, case.fp8) for case in every_case}
    assert kinds == {(s, f) for s in ("pretrain", "finetune") for f in (None, "delayed", "tensorwise", "blockwise")}
    for case in every_case:
        recipe = build(cases.case_recipe(case, cases.FULL, data, num_layers=7))
        language = recipe.model.language
        assert (language.num_layers, language.hidden_size, language.vocab_size) == (7, 4096, 32000)
        assert language.from_pretrained == recipe.model.vision.from_pretrained == "random"
        assert (recipe.precision.fp8, recipe.precision.fp8_recipe if case.fp8 else None) == (
            "hybrid" if case.fp8 else None,
            case.fp8,
        )
        assert (recipe.model.recompute_granularity == "full") == case.recompute
        assert layout_of(recipe).world_size == layout_of(recipe).num_microbatches == 1


def test_layers_that_fit(module):
    cases = module("_cases")
    finetune, pretrain = cases.Case("finetune"), cases.Case("pretrain")
    language = build(cases.llava.finetune("7b").model.language)
    state = cases._bytes_needed(language, 32, finetune, cases.FULL, fp8=False)
    frozen = cases._bytes_needed(language, 32, pretrain, cases.FULL, fp8=False)
    # 18 bytes of state for every trained weight, 2 for every frozen one; what is left are activations.
    assert 0 < state - 18 * LLAMA_7B_PARAMETERS < 0.1 * state
    assert 0 < frozen - 2 * LLAMA_7B_PARAMETERS < 0.4 * frozen

    def fit(case, gib, fp8=True):
        return cases.layers_that_fit(case, cases.FULL, gib * 2**30, fp8=fp8)

    assert fit(finetune, 1000) == fit(pretrain, 139.8) == 32
    assert 20 < fit(finetune, 139.8) < 32
    assert fit(finetune, 79) < fit(finetune, 139.8) < fit(finetune, 139.8, fp8=False)
    assert fit(cases.Case("finetune", recompute=False), 139.8) < fit(finetune, 139.8)
    with pytest.raises(ValueError, match="8 GiB of memory are too little for one layer"):
        fit(finetune, 8)


def test_difference_of_losses(module):
    difference = module("_cases").loss_difference([2.0, 1.0, 4.0], [2.5, 1.0, 3.0])
    assert difference == pytest.approx({"largest": 1.0, "mean": 0.5, "mean_percent": 100 * 1.5 / 6.5})


def test_the_table_of_a_gpu_report_fits_80_columns(module):
    done = {"status": "done", "num_layers": 27, "tokens_per_second": 123456.7, "loss": [10.37, 4.0]}
    report = {
        "machine": {
            "gpu": {"name": "NVIDIA H200", "memory_gib": 139.8, "driver": "580.159.04", "cuda": "13.0"},
            "packages": {"torch": "2.11.0+cu130", "transformer-engine": "2.11.0", "megatron-core": "0.16.1"},
        },
        "matmul": {"size": 8192, "tflops": 788.4},
        "training": [
            {
                **done,
                "name": "finetune bf16",
                "tflops_per_gpu": 423.42,
                "share_of_matmul": 0.537,
                "peak_memory_gib": 123.46,
            },
            {"name": "finetune fp8 blockwise", "status": "failed", "reason": "rank 0: RuntimeError: " + "word " * 60},
        ],
        "fp8_against_bf16": [{"name": "finetune fp8 tensorwise", "largest": 0.1234, "mean": 0.01, "mean_percent": 0.2}],
        "digits": {"name": "digits", "status": "done", "accuracy": 0.987, "seconds": 110.2},
        "failed": ["finetune fp8 blockwise"],
        "skipped": [
            "pretrain fp8 tensorwise",
            "pretrain fp8 delayed",
            "pretrain fp8 blockwise",
            "finetune bf16 no recompute",
        ],
    }
    text = module("_table").table(report)
    assert max(map(len, text.splitlines())) <= 80
    (row,) = [line for line in text.splitlines() if line.startswith("finetune bf16  ")]
    assert row.split()[2:] == ["27", "123,457", "423.4", "53.7", "%", "123.5", "4.000"]
    assert "failed: finetune fp8 blockwise: rank 0: RuntimeError: word" in text
    assert "no time for: pretrain fp8 tensorwise" in text
