"""Ctrl-C while a trained model is exported or evaluated: one line, the exit code of a shell, nothing half-written."""

import json
import shutil
import signal

import pytest

from neva_model.checkpoints.huggingface import export as huggingface
from neva_model.checkpoints.huggingface import naming
from neva_model.evaluation import answering, report
from neva_recipes.cli.main import main


def interrupting(function, *, times=1):
    """Return a function that is interrupted after it has done its work."""

    def call(*arguments, **options):
        result = function(*arguments, **options)
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return result

    return call


@pytest.fixture
def told(capsys, tmp_path, monkeypatch):
    """Return a function that runs the command and returns its exit code and its last line on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        return code, lines[-1] if lines else ""

    return run


@pytest.fixture
def run(llava_run, tmp_path):
    for name in ("evaluation.json", "predictions.jsonl"):
        (llava_run / name).unlink(missing_ok=True)
    shutil.rmtree(llava_run / "evaluations", ignore_errors=True)
    return shutil.copytree(llava_run, tmp_path / "run")


@pytest.fixture
def data(pictures, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat is that?"}, {"from": "gpt", "value": "A square."}]
    samples = [{"image": f"picture {number}.png", "conversations": turns} for number in range(3)]
    (tmp_path / "questions.json").write_text(json.dumps(samples))
    return "--data", tmp_path / "questions.json", "--image-folder", pictures


@pytest.mark.parametrize("step", ["load_export_tokenizer", "write_files", "write_processor"])
def test_an_export_leaves_nothing(step, run, told, tmp_path, monkeypatch):
    module = naming if step == "write_files" else huggingface
    monkeypatch.setattr(module, step, interrupting(getattr(module, step)))
    before = sorted(tmp_path.rglob("*"))
    assert told("export", run, "exported") == (130, "note: export was interrupted: nothing is left of exported")
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert told("export", run, "exported")[0] == 0 and (tmp_path / "exported" / "config.json").is_file()


def test_a_second_interruption_while_an_export_is_removed_leaves_nothing_either(run, told, tmp_path, monkeypatch):
    really, calls = shutil.rmtree, []

    def interrupted(folder, **options):
        calls.append(folder)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        really(folder, **options)

    monkeypatch.setattr(huggingface, "write_processor", interrupting(huggingface.write_processor))
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    before = sorted(tmp_path.rglob("*"))
    assert told("export", run, "exported") == (130, "note: export was interrupted: nothing is left of exported")
    assert sorted(tmp_path.rglob("*")) == before and len(calls) == 2


def test_an_export_that_was_complete_stays(run, told, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "export_huggingface", interrupting(huggingface.export_huggingface))
    assert told("export", run, "exported") == (130, "note: export was interrupted: exported is complete")
    assert (tmp_path / "exported" / "config.json").is_file()


def test_an_evaluation_keeps_nothing_before_the_last_answer(run, data, told, tmp_path, monkeypatch):
    def two_answers(*arguments, really=answering.answer_questions, **options):
        for number, answered in enumerate(really(*arguments, **options)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield answered

    monkeypatch.setattr(answering, "answer_questions", two_answers)
    before = sorted(tmp_path.rglob("*"))
    code, line = told("evaluate", run, *data)
    assert code == 130
    assert line == "note: evaluate was interrupted: nothing is kept, since results are written after the last answer"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_evaluation_that_is_being_written_is_written_whole(run, data, told, monkeypatch):
    monkeypatch.setattr(report, "write_text", interrupting(report.write_text))
    assert told("evaluate", run, *data)[0] == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert json.loads((run / "evaluation.json").read_text())["questions"] == 3
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 3
    assert len(list((run / "evaluations").iterdir())) == 2


def test_continuations_stay_and_an_empty_file_of_them_does_not(llama_directory, told, tmp_path, monkeypatch):
    from neva_model.inference import texts

    words = ["generate", llama_directory, "--prompt=odd", "--prompt=even", "--max-new-tokens=2", "--output=a.jsonl"]
    with monkeypatch.context() as patch:
        patch.setattr(texts, "_line", interrupting(texts._line))
        assert told(*words) == (130, "note: generate was interrupted")
    assert not (tmp_path / "a.jsonl").exists(), "it would be in the way of the same command"
    monkeypatch.setattr(texts.ProgressLine, "show", interrupting(texts.ProgressLine.show))
    assert told(*words) == (130, "note: generate was interrupted: a.jsonl holds what was done")
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 1
