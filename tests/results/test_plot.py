"""`nemo-run plot`: every point where it belongs, whatever the terminal can show."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from executors import State, write_state
from neva_recipes.cli.main import main
from neva_recipes.cli.report.chart import Series, chart_lines
from tests.results.written_runs import write_metrics

ESCAPES = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def plot(folder, capsys, monkeypatch):
    """A function that runs the command for a terminal of 80x24 and returns what it printed."""
    for name, value in (("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(*arguments, code=0):
        assert main(["plot", *map(str, arguments)]) == code
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) if code else err == ""
        return err if code else out

    return call


def test_a_straight_line():
    series = Series([0, 10, 20], [0.0, 1.0, 2.0], "a", 36)
    lines = chart_lines([series], 23, 8, is_log=False, has_braille=False, has_colour=False)
    assert lines == [
        "2 +                 aaa",
        "  |             aaaa",
        "1 +         aaaa",
        "  |      aaa",
        "  |  aaaa",
        "0 +aa",
        "  ++------------------+",
        "   0                 20",
    ]
    lines = chart_lines([series], 23, 8, is_log=False, has_braille=True, has_colour=False)
    assert [line[3:] for line in lines[:6]] == [
        "                 ⣀⠔⠊",
        "              ⡠⠔⠉",
        "          ⢀⡠⠒⠉",
        "       ⣀⠤⠒⠁",
        "   ⢀⡠⠔⠉",
        "⡠⠔⠊⠁",
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6)), min_size=1, max_size=30, unique_by=lambda p: p[0]),
    st.booleans(),
    st.booleans(),
)
def test_charts_keep_their_size_and_show_the_extremes(points, has_braille, is_sparse):
    steps, values = zip(*sorted(points), strict=True)
    series = Series(steps, values, "a", 36, is_sparse)
    lines = chart_lines([series], 60, 14, is_log=False, has_braille=has_braille, has_colour=False)
    assert len(lines) == 14 and max(map(len, lines)) <= 60
    is_drawn = [bool(re.search("[a\u2801-\u28ff]", line)) for line in lines]
    if max(values) > min(values):
        assert is_drawn[0] and is_drawn[11] and not any(is_drawn[12:])
    coloured = chart_lines([series], 60, 14, is_log=False, has_braille=has_braille, has_colour=True)
    assert [ESCAPES.sub("", line).rstrip() for line in coloured] == [line.rstrip() for line in lines]


def test_ticks_stand_where_their_values_are():
    """A level curve at each tick is drawn in the tick's row."""
    ends = Series([0, 100], [1.0, 1000.0], "e", 36, is_sparse=True)
    lines = chart_lines([ends], 60, 22, is_log=True, has_braille=False, has_colour=False)
    ticks = {float(line.split()[0]): row for row, line in enumerate(lines) if line.split()[0].isdigit() and row < 20}
    assert ticks.keys() == {1.0, 10.0, 100.0, 1000.0}
    for value, row in ticks.items():
        level = Series([50], [value], "x", 33, is_sparse=True)
        drawn = chart_lines([ends, level], 60, 22, is_log=True, has_braille=False, has_colour=False)
        assert [number for number, line in enumerate(drawn) if "x" in line] == [row]


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 100, 12345])
def test_ticks_of_steps_are_whole_and_stand_under_their_steps(count, width):
    def axis_with(point):
        series = Series(range(1, count + 1), [2.0] * count, "a", 36)
        dot = Series([point], [1.0], "x", 33, is_sparse=True)
        return chart_lines([series, dot], width, 12, is_log=False, has_braille=False, has_colour=False)

    *_, axis, labels = axis_with(1)
    assert axis.count("+") - 1 == len(labels.split())  # the first is that of the corner
    steps = [int(label.replace(",", "")) for label in labels.split()]
    assert steps == sorted(set(steps)) and steps[0] >= 1 and steps[-1] <= count
    assert len(steps) == count if count <= 3 else len(steps) >= width // 40
    for step in steps:
        lines = axis_with(step)
        (column,) = {line.index("x") for line in lines if "x" in line}
        assert lines[-2][column] == "+"


def test_ticks_of_values_that_are_close_to_each_other_are_told_apart():
    series = Series([1, 2], [3.55781, 3.55789], "a", 36)
    lines = chart_lines([series], 60, 22, is_log=False, has_braille=False, has_colour=False)
    ticks = [line.split()[0] for line in lines[:20] if line.split()[0] not in "|a"]
    assert len(ticks) >= 3 and len(set(ticks)) == len(ticks)


def test_one_run_and_several(make_run, plot):
    make_run("a")
    make_run("b", shift=0.1)
    alone = plot("a")
    assert len(alone.splitlines()) <= 24 and max(map(len, alone.splitlines())) <= 80
    assert re.search("[\u2801-\u28ff]", alone) and alone.startswith("loss by step (logarithmic)\n")
    assert alone.splitlines()[-1] == "a    dots 0.01, lowest 0.01  A 0.34, lowest 0.21"
    both = plot("a", "b")
    assert both.isascii() and "\x1b" not in both
    chart = both.partition("RUN")[0]
    assert all(letter in chart for letter in "abAB")


def test_patterns_draw_every_run_once(make_run, plot):
    for name in ("lr-1", "lr-2", "other"):
        make_run(name)
    (make_run("lr-3") / "metrics" / "metrics.csv").unlink()
    assert [line.split()[0] for line in plot("lr-*", "lr-1").splitlines()[-2:]] == ["lr-1", "lr-2"]
    # Two of one name are told apart by their folders.
    shutil.copytree("runs/other", "elsewhere/other")
    drawn = plot("other", "elsewhere/other")
    assert all(f"{Path.cwd()}/{folder}/other" in drawn for folder in ("runs", "elsewhere"))


def test_what_the_terminal_can_show(make_run, plot, monkeypatch):
    make_run("a")
    make_run("b", shift=0.1)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    coloured = plot("a", "b")
    assert "\x1b[36m" in coloured and "\x1b[33m" in coloured and re.search("[\u2801-\u28ff]", coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    assert plot("a", "b").isascii()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert plot("a", "b").isascii()
    sys.stdout.reconfigure(encoding="ascii")
    assert plot("a").isascii()


def test_other_metrics_and_mistakes(make_run, plot, folder):
    path = make_run("a")
    assert plot("a", "--metric", "step_time").startswith("step_time by step\n")
    assert "A " not in plot("a", "--metric", "val_loss")
    of_loss = plot("a", "--metric", "loss").partition("\n")[2]
    assert of_loss == plot("a", "--metric", "reduced_train_loss").partition("\n")[2]
    assert "steptime: was not logged by a (did you mean step_time?)" in plot("a", "--metric", "steptime", code=2)
    assert "lr: was not logged by a: expected one of reduced_train_loss, " in plot("a", "--metric", "lr", code=2)
    assert "no run 'b' in runs" in plot("a", "b", code=2)
    write_metrics(path, {})
    assert "a: has logged no metrics (succeeded)" in plot("a", code=2)


def test_a_run_without_metrics_keeps_no_other_from_being_drawn(make_run, capsys, folder):
    make_run("good")
    path = make_run("bad")
    write_metrics(path, {})
    write_state(path, State(state="failed", exit_code=1, reason="no such file"))
    assert main(["plot", "bad", "good"]) == 0
    out, error = capsys.readouterr()
    assert error == "note: bad: has logged no metrics (failed: no such file)\n"
    assert "good" in out and "bad" not in out


def test_pictures(make_run, plot, folder, monkeypatch):
    make_run("a")
    make_run("b$x", shift=0.1)
    assert plot("a", "b$x", "--output", "curves.png") == "written: curves.png\n"
    with Image.open(folder / "curves.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (1000, 600))
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert plot("a", "--output", "curves.png") == "written: curves.png\n"  # one of ours is replaced
    Image.new("RGB", (9, 9)).save("photo.png")
    assert "photo.png: exists already, and was not made by nemo-run plot" in plot("a", "--output", "photo.png", code=2)
    Path("photo.png").unlink()
    assert "expected a name that ends in .png" in plot("a", "--output", "curves.pdf", code=2)
    assert "cannot be written: Not a directory" in plot("a", "--output", "curves.png/a.png", code=2)
    assert plot("a", "--output", "of/a run/curves.png") == "written: of/a run/curves.png\n"
    assert (folder / "of" / "a run" / "curves.png").is_file()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'neva-recipes[plot]'" in plot("a", "--output", "other.png", code=2)
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "of", "runs"]


def test_stages_of_a_pipeline(make_run, plot, folder):
    for name in ("one", "two"):
        make_run(name)
    pipeline = make_run("p")
    (pipeline / "stages").mkdir()
    for name in ("one", "two"):
        (folder / "runs" / name).rename(pipeline / "stages" / name)
    stages = [{"name": name, "after": [], "settings": {}} for name in ("one", "two", "three")]
    spec = json.dumps({"schema": 1, "name": "p", "parallel": 1, "stages": stages})
    (pipeline / "pipeline.json").write_text(spec)
    assert [line.split()[0] for line in plot("p").splitlines()[-2:]] == ["p/one", "p/two"]
