import dataclasses
import gzip
import json
import os
import re
import resource
import shutil
import signal
import zlib

import pytest
from PIL import Image

from neva_model import evaluation
from neva_model.data import Turn
from neva_model.evaluation import trained
from neva_model.evaluation.command import run_directory_of
from neva_model.evaluation.report import Score, format_table, write_text
from neva_model.inference import opening
from neva_recipes.config import DataError, RunError, UserError
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.state import State, now, write_state
from tests.inference.tiny_models import oracle_answer

QUESTIONS = ["What is in the picture?", "Is it odd or even?", "Which digit is this? Is it?"]


def write_data(path, samples):
    path.write_text(json.dumps(samples), encoding="utf-8")
    return path


def conversation(*exchanges, image=True):
    turns = []
    for question, answer in exchanges:
        mark = "<image>\n" if image and not turns else ""
        turns += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
    return turns


@pytest.fixture(scope="module")
def answered(llava, llava_oracle, pictures):
    """Samples of one to three turns; which questions transformers answers right is known."""
    samples, right = [], []
    for number in range(5):
        name = f"picture {number}.png"
        exchanges, turns = [], []
        for position, question in enumerate(QUESTIONS[: 1 + number % 3]):
            turns.append(Turn("human", question, image=not turns))
            answer = oracle_answer(llava_oracle, llava, turns, pictures / name, 30, must_end=True).strip()
            is_right = (number + position) % 2 == 0
            # Later turns build on the reference, right or wrong, not on what the model said.
            reference = f" {answer}\n" if is_right else "something else"
            turns.append(Turn("gpt", reference))
            exchanges.append((question, reference))
            right.append(is_right)
        samples.append({"id": f"no. {number}", "image": name, "conversations": conversation(*exchanges)})
    question = Turn("human", "What is that?")
    answer = oracle_answer(llava_oracle, llava, [question], None, 30, must_end=True)
    samples.append({"conversations": conversation(("What is that?", answer), image=False)})
    return samples, [*right, True]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_answers_are_those_of_transformers_whatever_the_batches(
    answered, llava_run, pictures, tmp_path, capsys, batch_size
):
    samples, right = answered
    data = write_data(tmp_path / "quéstions.json", samples)
    output = tmp_path / "a new folder" / "all answers.jsonl"
    arguments = [str(llava_run), f"--data={data}", f"--image-folder={pictures}", f"--output={output}"]
    assert evaluation.main([*arguments, f"--batch-size={batch_size}"]) == 0
    predictions = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [one["correct"] for one in predictions] == right
    assert [(one["sample"], one["turn"]) for one in predictions] == [
        (sample, turn) for sample, record in enumerate(samples) for turn in range(len(record["conversations"]) // 2)
    ]
    assert predictions[0]["id"] == "no. 0" and predictions[-1]["id"] is None
    report = json.loads((llava_run / "evaluation.json").read_text(encoding="utf-8"))
    assert report["digests"] == [f"crc32:{zlib.crc32(data.read_bytes()):08x}"]
    assert (report["questions"], report["correct"], report["conv_template"]) == (len(right), sum(right), "v1")
    assert report["accuracy"] == sum(right) / len(right)
    assert report["by_question"]["What is in the picture?"] == {"questions": 5, "correct": 3, "accuracy": 0.6}
    printed = capsys.readouterr()
    assert re.search(rf"^all +{sum(right)} +{len(right)} +0\.\d{{4}}$", printed.out, re.MULTILINE)
    assert printed.out.splitlines()[-2:] == [
        "correct: the same as the reference, white space at its ends apart",
        f"answers: {output}",
    ]
    assert printed.err.splitlines()[-1].startswith(f"{len(right)} of {len(right)} questions answered, ")


def test_results_lie_beside_the_model(answered, llava_directory, llava_run, pictures, tmp_path, capsys):
    samples, right = answered
    lines, packed = tmp_path / "questions.jsonl", tmp_path / "more.json.gz"
    lines.write_text("".join(json.dumps(sample) + "\n" for sample in samples[:2]))
    packed.write_bytes(gzip.compress(json.dumps(samples[2:]).encode()))
    evaluation.main([str(llava_directory), f"--data={lines},{packed}", f"--image-folder={pictures}"])
    assert capsys.readouterr().out.splitlines()[-1] == f"answers: {llava_directory / 'predictions.jsonl'}"
    assert json.loads((llava_directory / "evaluation.json").read_text())["correct"] == sum(right)
    assert len((llava_directory / "predictions.jsonl").read_text().splitlines()) == len(right)
    assert run_directory_of(llava_run / "checkpoints" / "step-00000007") == llava_run


def test_questions_that_are_asked_twice_are_told(answered, llava_directory, pictures, tmp_path, capsys):
    samples, right = answered
    data, packed = write_data(tmp_path / "held.json", samples), tmp_path / "held.json.gz"
    packed.write_bytes(gzip.compress(data.read_bytes()))
    count = len(right)
    for named, notes in ((f"{data}", 0), (f"{data},{packed}", 1)):
        evaluation.main([str(llava_directory), f"--data={named}", f"--image-folder={pictures}"])
        told = capsys.readouterr().err
        assert told.count("are copies of other questions") == notes
    assert f"note: {count} of the {2 * count} questions are copies of other questions, with the same words" in told
    assert f"each of them counts; the first is sample 0 of {packed}\n" in told


def test_images_that_are_not_used_as_they_show_themselves_are_told(llava_directory, tmp_path, capsys):
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "one.gif")
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((640, 480), 100).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "small.jpg", exif=exif)
    turns = conversation(("What?", "this"), ("And that?", "that"))
    several, turned = "1 of 4 images looked at has several pages", "2 of 4 images looked at have an EXIF rotation"
    for names, notes in ((["one.gif", "two.gif", "turned.jpg", "small.jpg"], 1), (["one.gif"], 0)):
        data = write_data(tmp_path / "data.json", [{"image": name, "conversations": turns} for name in names * 2])
        evaluation.main([str(llava_directory), f"--data={data}"])
        told = capsys.readouterr().err
        assert (told.count(f"note: {several}"), told.count(f"note: {turned}")) == (notes, notes)
        assert told.count("looked at") == 2 * notes
        assert (f"the first is {tmp_path}/two.gif" in told, f"the first is {tmp_path}/turned.jpg" in told) == (
            (notes > 0,) * 2
        )


def test_reports_are_kept_by_checkpoint_and_data(answered, llava_run, pictures, tmp_path, capsys):
    samples, right = answered
    run = tmp_path / "run"
    shutil.copytree(llava_run, run)
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    first, second = (run / "checkpoints" / name for name in ("step-00000007", "step-00000009"))
    shutil.copytree(first, second)
    data = write_data(tmp_path / "held out!.json", samples[:1])

    def evaluate(model):
        evaluation.main([str(model), f"--data={data}", f"--image-folder={pictures}"])
        return sorted(path.name for path in (run / "evaluations").iterdir())

    names = evaluate(first)
    assert [re.sub("[0-9a-f]{8}(?=[.])", "X", name) for name in names] == [
        "step-00000007-held_out_-X.json",
        "step-00000007-held_out_-X.jsonl",
    ]
    kept = (run / "evaluations" / names[0]).read_text()
    assert kept == (run / "evaluation.json").read_text() and json.loads(kept)["questions"] == 1
    assert (run / "evaluations" / names[1]).read_text() == (run / "predictions.jsonl").read_text()
    # The same again takes the place of the first; another checkpoint and other data do not.
    assert evaluate(first) == names
    assert len(evaluate(run)) == 4
    write_data(data, samples)
    assert len(evaluate(run)) == 6
    newest = json.loads((run / "evaluation.json").read_text())
    assert (newest["model"], newest["questions"]) == (str(second), len(right))
    (run / "evaluations").rename(run / "moved")
    (run / "evaluations").touch()
    capsys.readouterr()
    with pytest.raises(RunError, match=r"/run/evaluations: the results cannot be written there: no such directory, or"):
        evaluate(run)
    assert "questions answered" not in capsys.readouterr().err
    (run / "evaluations").unlink()
    (run / "evaluation.json").unlink()
    (run / "evaluation.json").mkdir()
    with pytest.raises(RunError, match=r"/run/evaluation\.json: cannot be written: Is a directory$"):
        evaluate(run)
    assert re.search(rf"^all +{sum(right)} +{len(right)} ", capsys.readouterr().out, re.MULTILINE)


def test_questions_that_were_trained_on_are_told(answered, llava_run, pictures, tmp_path, capsys, monkeypatch):
    samples, _ = answered
    exchanges = [("Who is it?", "a digit"), ("Since when?", "now")]
    talk = [{"image": samples[0]["image"], "conversations": conversation(*some)} for some in (exchanges, exchanges[1:])]
    data = write_data(tmp_path / "train.json", [samples[0], talk[0]])
    os.utime(data, (0, 0))
    run = tmp_path / "run"
    shutil.copytree(llava_run, run)
    (run / "plan.json").touch()
    (run / "job.json").write_text(json.dumps({"name": "run", "created": "2020-01-01T00:00:00+00:00"}))

    def open_trained(*arguments, really=opening.open_model):
        opened = really(*arguments)
        trained_on = dataclasses.replace(opened.recipe.data, data_path=str(data), image_folder=str(pictures))
        return dataclasses.replace(opened, recipe=dataclasses.replace(opened.recipe, data=trained_on))

    monkeypatch.setattr(opening, "open_model", open_trained)
    (run / "link.json").symlink_to(data)
    turns = [len(sample["conversations"]) // 2 for sample in samples]
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(f"{json.dumps(sample)}\n" for sample in reversed(samples[:2])))
    new = write_data(tmp_path / "new.json", samples[1:3])
    cut = write_data(tmp_path / "cut.json", [talk[1], samples[1]])
    in_file = turns[0] + len(exchanges)
    cases = [
        (run / "link.json", True, in_file, f"{run / 'link.json'}: the model was trained on"),
        (lines, True, turns[0], f"{turns[0]} of the {sum(turns[:2])} questions "),
        (new, False, 0, None),
        (cut, True, 1, f"1 of the {1 + turns[1]} questions is a training sample too: "),
    ]
    for named, is_trained, count, note in cases:
        assert report_on(run, named, pictures) == (is_trained, count)
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert [line.startswith(f"note: {note}") for line in told] == [True] * (note is not None), told
        answers = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        assert sum("training_data" in answer for answer in answers) == count
    assert [answer["sample"] for answer in answers if answer.get("training_data")] == [0]
    assert told[0].endswith(f"; the first is sample 0 of {cut}, and the answers mark them all")
    # A training file that was written after the run has started tells nothing of the training.
    os.utime(data)
    capsys.readouterr()
    assert [report_on(run, named, pictures) for named in (run / "link.json", lines, new)] == [(None, None)] * 3
    assert capsys.readouterr().err.count(f"note: {data}: is newer than the last start that trained the model: ") == 3
    # An attempt that has saved no checkpoint has trained nothing that is evaluated.
    write_state(run, State(state="failed", attempt=2, started=now()))
    assert [report_on(run, named, pictures) for named in (run / "link.json", lines, new)] == [(None, None)] * 3
    # One that was mended before a resume was trained on by that attempt; what earlier ones have read is not known.
    write_state(run, State(state="succeeded", attempt=2, started=now()))
    (list_checkpoints(run / "checkpoints")[-1] / "recipe.yaml").touch()
    capsys.readouterr()
    for file in ("state.json", "plan.json"):  # other fields at the resume have the plan written anew
        (run / file).touch()
        reports = [report_on(run, named, pictures) for named in (run / "link.json", lines, new)]
        assert reports == [(True, in_file), (True, None), (None, None)], file
    assert "is newer than" not in capsys.readouterr().err
    os.utime(data, (0, 0))
    # What can be compared in no time at all, or without the training file, says nothing of the rest.
    monkeypatch.setattr(trained, "_SECONDS", -1.0)
    assert report_on(run, new, pictures) == (None, None)
    data.unlink()
    assert report_on(run, new, pictures) == (None, None)


def report_on(run, data, pictures):
    """Return what the report of an evaluation says of questions that were trained on."""
    evaluation.main([str(run), f"--data={data}", f"--image-folder={pictures}"])
    report = json.loads((run / "evaluation.json").read_text())
    return report["training_data"], report["training_questions"]


def test_wrong_input_is_named_and_nothing_is_written(
    answered, llava_directory, llama_directory, llama_run, llava_run, pictures, tmp_path
):
    samples, _ = answered

    def message(model, records, *arguments, folder=pictures):
        data = write_data(tmp_path / "questions.json", records)
        with pytest.raises(UserError) as caught:
            evaluation.main([str(model), f"--data={data}", f"--image-folder={folder}", *arguments])
        return str(caught.value)

    one = conversation(("What?", "this"))
    long = conversation(("What is that? " * 200, "this"), image=False)
    before = {path: path.read_bytes() for path in llava_run.glob("*.json*")}
    named = re.compile(re.escape(f"{tmp_path}/questions.json: sample 1 (id 'b'): ") + "(.+)")
    with_second = lambda record: [samples[0], {"id": "b", **record}]  # noqa: E731
    none = {"image": "none.png", "conversations": one}
    reason = lambda record: named.fullmatch(message(llava_run, with_second(record)))[1]  # noqa: E731
    assert reason(none) == f"image file {pictures}/none.png does not exist (image names are relative to --image-folder)"
    assert "does not exist" in reason({**none, "image": "a\0b"})
    assert reason({**none, "image": "n" * 300}).endswith("cannot be looked up: File name too long")
    assert reason({"conversations": long}).startswith("the prompt takes ")
    assert reason({"conversations": []}).startswith("conversations is empty")
    assert "half a surrogate pair" in reason({"conversations": conversation(("What?", "\ud800"), image=False)})
    assert message(llava_run, []) == f"{tmp_path}/questions.json: holds no sample"
    packed = tmp_path / "questions.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(samples).encode())[:-9])
    assert message(llava_run, [], f"--data={packed}").startswith(f"{packed}: the compressed file ends too early")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken = [{"id": "c", "image": "broken.png", "conversations": one}]
    assert f"sample 0 (id 'c'): image file {tmp_path}/broken.png cannot be decoded" in message(
        llava_run, broken, folder=tmp_path
    )
    assert "text-only model" in message(llama_directory, samples[:1])
    assert "no conversation template" in message(llama_run, samples[-1:])
    assert "--batch-size=0" in message(llava_run, samples, "--batch-size=0")
    (tmp_path / "notes.txt").write_text("notes")
    for taken in ("questions.json", "notes.txt", "broken.png"):
        said = message(llava_run, samples, f"--output={tmp_path / taken}")
        assert said.endswith(f"{taken}: is there already, and holds no answers of an evaluation: name another file")
    assert json.loads((tmp_path / "questions.json").read_text()) and (tmp_path / "notes.txt").read_text() == "notes"
    assert "no such directory" in message(llava_run, samples, f"--output={tmp_path}/notes.txt/answers.jsonl")
    assert "did you mean llama_2" in message(llava_run, samples, "--conv-template=llama-2")
    assert before == {path: path.read_bytes() for path in llava_run.glob("*.json*")}


def test_the_data_files_are_looked_for_before_the_model(tmp_path):
    there = write_data(tmp_path / "there.json", [])
    with pytest.raises(DataError, match=r"^nope: cannot be read: No such file or directory$"):
        evaluation.main(["no-model", f"--data=[{there},nope]"])


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    target = tmp_path / "evaluation.json"
    write_text(target, "old")
    hard, soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, soft))
    try:
        with pytest.raises(RunError, match=r"evaluation\.json: cannot be written: File too large"):
            write_text(target, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, soft))
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_table_has_80_columns_and_folds_rare_questions():
    by_text = {"Which\n digit?": Score(1200, 1100), "q" * 100: Score(3, 1)}
    by_text |= {f"Rare {number:02}": Score(1, number % 2) for number in range(20)}
    table = format_table(Score(1223, 1111), by_text, 80)
    *lines, meaning = table.splitlines()
    assert meaning == "correct: the same as the reference, white space at its ends apart"
    assert {len(line) for line in lines} == {80}
    assert len(lines) == 1 + 20 + 2
    assert lines[:3] == [
        "question                                              correct       of  accuracy",
        "Which digit?                                            1,100    1,200    0.9167",
        f"{'q' * 48}...         1        3    0.3333",
    ]
    assert lines[-2:] == [
        "(2 other questions)                                         1        2    0.5000",
        "all                                                     1,111    1,223    0.9084",
    ]
