import json
import re
import resource
import signal

import pytest

from neva_model import evaluation
from neva_model.data import Turn
from neva_model.evaluation.command import _directory_of
from neva_model.evaluation.report import Score, format_table, write_text
from neva_recipes.config import RunError, UserError
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
    output = tmp_path / "all answers.jsonl"
    arguments = [str(llava_run), f"--data={data}", f"--image-folder={pictures}", f"--output={output}"]
    assert evaluation.main([*arguments, f"--batch-size={batch_size}"]) == 0
    predictions = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [one["correct"] for one in predictions] == right
    assert [(one["sample"], one["turn"]) for one in predictions] == [
        (sample, turn) for sample, record in enumerate(samples) for turn in range(len(record["conversations"]) // 2)
    ]
    assert predictions[0]["id"] == "no. 0" and predictions[-1]["id"] is None
    report = json.loads((llava_run / "evaluation.json").read_text(encoding="utf-8"))
    assert (report["questions"], report["correct"], report["conv_template"]) == (len(right), sum(right), "v1")
    assert report["accuracy"] == sum(right) / len(right)
    assert report["by_question"]["What is in the picture?"] == {"questions": 5, "correct": 3, "accuracy": 0.6}
    printed = capsys.readouterr()
    assert re.search(rf"^all +{sum(right)} +{len(right)} +0\.\d{{4}}$", printed.out, re.MULTILINE)
    assert printed.err.splitlines()[-1].startswith(f"{len(right)} of {len(right)} questions answered, ")


def test_results_lie_beside_the_model(answered, llava_directory, llava_run, pictures, tmp_path):
    samples, right = answered
    data = write_data(tmp_path / "questions.jsonl", None)
    data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    evaluation.main([str(llava_directory), f"--data={data}", f"--image-folder={pictures}"])
    assert json.loads((llava_directory / "evaluation.json").read_text())["correct"] == sum(right)
    assert len((llava_directory / "predictions.jsonl").read_text().splitlines()) == len(right)
    assert _directory_of(llava_run / "checkpoints" / "step-00000007") == llava_run


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
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken = [{"id": "c", "image": "broken.png", "conversations": one}]
    assert f"sample 0 (id 'c'): image file {tmp_path}/broken.png cannot be decoded" in message(
        llava_run, broken, folder=tmp_path
    )
    assert "text-only model" in message(llama_directory, samples[:1])
    assert "no conversation template" in message(llama_run, samples[-1:])
    assert "--batch-size=0" in message(llava_run, samples, "--batch-size=0")
    assert "no such directory" in message(llava_run, samples, f"--output={tmp_path}/none/answers.jsonl")
    assert "did you mean llama_2" in message(llava_run, samples, "--conv-template=llama-2")
    assert before == {path: path.read_bytes() for path in llava_run.glob("*.json*")}


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
    table = format_table(Score(1223, 1111), by_text)
    lines = table.splitlines()
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
