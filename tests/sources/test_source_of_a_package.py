"""A format of data files that an installed package reads, compared with the same samples in the product's own."""

import csv
import gzip
import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

from executors import find_run
from neva_recipes.config import DataError, RecipeError
from neva_recipes.run_directory.metrics import TRAIN_LOSS
from neva_recipes.sources.content import open_part
from neva_recipes.sources.records import scan_samples, scan_texts
from tests.end_to_end.world import make_world, nemo_run
from tests.installed_packages import install

CSV = """
    import csv
    import io

    from neva_recipes.config import DataError
    from neva_recipes.sources import DataSource

    def records(file):
        for number, row in enumerate(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))):
            if row.get("answer") is None:
                raise DataError(f"row {number}: has no answer")
            if row.get("question") is None:
                yield {"text": row["answer"]}
                continue
            image = {"image": row["image"]} if row["image"] else {}
            question = ("<image>" if row["image"] else "") + row["question"]
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": row["answer"]}]
            yield {"id": number, **image, "conversations": turns}

    CSV = DataSource("csv", (".csv",), records)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    install(folder, "tables", CSV, "neva_recipes.sources", "csv = tables:CSV")
    return folder


@pytest.fixture
def installed(package, monkeypatch):
    monkeypatch.syspath_prepend(package)


def rows_of(samples):
    """Return rows of image, question and answer for the first turns of samples."""
    for sample in samples:
        question, answer = (turn["value"] for turn in sample["conversations"][:2])
        yield sample.get("image", ""), question.removeprefix("<image>\n"), answer


def write_table(path, rows, head=("image", "question", "answer")):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def read_samples(path):
    return [record for _, _, record in scan_samples(path)]


@pytest.mark.parametrize("name", ["table.csv", "TABLE.CSV", "table.csv.gz", "packed.csv"])
def test_its_records_are_the_content(name, installed, tmp_path):
    rows = [(f"{number}.png" if number % 2 else "", "Wäs\nist das?", f"antwort {number}") for number in range(500)]
    path = write_table(tmp_path / name, rows)
    if name == "packed.csv":
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read_samples(path)
    assert [(one.get("image", ""), one["conversations"][1]["value"]) for one in found] == [
        (image, answer) for image, _, answer in rows
    ]
    # The beginning of it, and about how much there is.
    with open_part(path, 5000) as part:
        begin = part.file.read()
        assert 5000 <= len(begin) <= part.total
        assert not part.is_whole
    with open_part(path, 10**7) as whole:
        assert whole.is_whole
        content = whole.file.read()
    assert content.startswith(begin)
    assert [json.loads(line) for line in content.splitlines()] == found
    for offset, length, record in scan_samples(path):
        assert json.loads(content[offset : offset + length]) == record


LISTS = """
    import csv
    import io

    from neva_recipes.sources import DataSource

    def records(file):
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")))

    LISTS = DataSource("lists", (".lst",), records)
"""


def test_a_reader_that_reads_ahead_leaves_the_size_to_an_estimate(tmp_path, monkeypatch):
    install(tmp_path, "lists", LISTS, "neva_recipes.sources", "lists = lists:LISTS")
    monkeypatch.syspath_prepend(tmp_path)
    path = write_table(tmp_path / "long.lst", [(str(number), "text " * 20) for number in range(3000)], ["id", "text"])
    with open_part(path, 5000) as part:
        assert not part.is_whole
        assert 0.5 * path.stat().st_size < part.total < 2 * path.stat().st_size
    assert len(read_samples(path)) == 3000


def test_a_damaged_file_is_none_of_its_package(installed, tmp_path):
    path = write_table(tmp_path / "cut.csv.gz", [("", "a", "b" * number) for number in range(500)])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"/cut\.csv\.gz: the compressed file ends too early: it is truncated"):
        read_samples(path)


def test_documents(installed, tmp_path):
    path = write_table(tmp_path / "texts.csv", [["one"], ["two"], [" "]], head=["answer"])
    assert list(scan_texts(path)) == [(1, "one"), (2, "two")]


def test_what_is_wrong_with_a_file_and_with_its_source(installed, tmp_path):
    with pytest.raises(DataError, match=r"/short\.csv: row 1: has no answer$"):
        read_samples(write_table(tmp_path / "short.csv", [("", "a", "b"), ("", "c")]))
    (tmp_path / "latin.csv").write_bytes(b"image,question,answer\n,a,\xe4\n")
    with pytest.raises(RecipeError, match=r"tables\.py, line \d+: UnicodeDecodeError: 'utf-8' codec can't decode"):
        read_samples(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("source", "entry_point", "message"),
    [
        ("X = 3", "x = sa:X", "source x (sa:X): expected a DataSource, got 3"),
        ("X = DataSource('y', ('.x',), iter)", "x = sb:X", "source x (sb:X): its name is 'y': expected 'x'"),
        ("X = DataSource('x', ('.json',), iter)", "x = sc:X", "its ending is '.json': expected one in small letters"),
        (
            "X = DataSource('x', ('x',), iter)",
            "x = sd:X",
            "its ending is 'x': expected one in small letters, with a dot",
        ),
        ("X = DataSource('x', ('.csv',), iter)", "x = se:X", "is read by the sources csv and x of installed packages"),
    ],
)
def test_what_a_package_offers_wrongly(source, entry_point, message, installed, tmp_path, monkeypatch):
    name = re.findall(r"= (\w+):", entry_point)[0]
    text = f"from neva_recipes.sources import DataSource\n{source}\n"
    install(tmp_path, name, text, "neva_recipes.sources", entry_point)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=re.escape(message)):
        read_samples(write_table(tmp_path / "table.csv", [("", "a", "b")]))


READER = """
    from neva_recipes.sources import DataSource

    def records(file):
        for line in file:
            turns = [{{"from": "human", "value": "What?"}}, {{"from": "gpt", "value": line.decode().strip() + "{end}"}}]
            yield {{"conversations": turns}}

    LINES = DataSource("lines", (".lines",), records)
"""

READ = """
import sys
from pathlib import Path

from neva_model.data.index import SampleIndex, SampleRules
from neva_recipes.prompts.templates import get_template

path = Path(sys.argv[1])
index = SampleIndex(path, path.parent / "cache", SampleRules(get_template("v1"), path.parent))
print(*(index.read(number)["conversations"][1]["value"] for number in range(len(index))))
"""


def test_the_records_are_written_again_for_another_reader(tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    path = tmp_path / "answers.lines"
    path.write_text("one\ntwo\n")

    def read():
        done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    said = f"{path}: is converted into {tmp_path / 'cache'}"
    install(packages, "lines", READER.format(end="."), "neva_recipes.sources", "lines = lines:LINES")
    assert read() == [said, "one. two."]
    assert read() == ["one. two."]
    # The code is another, as in an editable package.
    (packages / "lines.py").write_text(textwrap.dedent(READER.format(end="! ")))
    assert read() == [said, "one!  two! "]
    # The version is another, as where the reader depends on other modules of its package.
    metadata = packages / "lines-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    assert read() == [said, "one!  two! "]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_it_goes_from_a_dry_run_to_an_export_as_the_same_samples_do(package, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    world = make_world(tmp_path_factory.mktemp("world"))
    rows = list(rows_of(world.samples))
    write_table(world.folder / "table.csv", rows)
    turns = [
        [{"from": "human", "value": f"{'<image>' if image else ''}{question}"}, {"from": "gpt", "value": answer}]
        for image, question, answer in rows
    ]
    samples = [
        {"id": number, **({"image": row[0]} if row[0] else {}), "conversations": turns[number]}
        for number, row in enumerate(rows)
    ]
    world.write("samples.json", samples)
    lengths, losses, accuracies, exported = [], [], [], []
    for name, file in (("own", "samples.json"), ("foreign", "table.csv")):
        words = ["llava.finetune", *world.tiny(data__data_path=file, data__validation_data_path=file)]
        planned = json.loads(nemo_run(*words, "--dry-run", "--format", "json", cwd=world.folder).stdout)
        lengths.append({key: planned["plan"]["lengths"][key] for key in ("tokens", "images", "samples", "truncated")})
        nemo_run(*words, "--name", name, cwd=world.folder)
        nemo_run("resume", name, "trainer.max_steps=5", cwd=world.folder)
        run = find_run(name, world.folder / "runs")
        losses.append(list(run.metrics()[TRAIN_LOSS].values))
        nemo_run("evaluate", name, "--data", file, cwd=world.folder)
        report = json.loads((run.path / "evaluation.json").read_text())
        accuracies.append([report[key] for key in ("questions", "accuracy", "training_data")])
        nemo_run("export", name, f"exported {name}", cwd=world.folder)
        exported.append((world.folder / f"exported {name}" / "model.safetensors").read_bytes())
    assert lengths[0] == lengths[1]
    assert len(losses[0]) == 5 and losses[0] == losses[1]
    assert accuracies[0] == accuracies[1] and accuracies[0][::2] == [len(rows), True]
    assert exported[0] == exported[1]
