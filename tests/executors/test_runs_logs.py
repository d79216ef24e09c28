"""Logs of many ranks and of long runs: folded lines, the last ones, those since a time."""

import os
import random
import time
from datetime import UTC, datetime

import pytest
from executor_jobs import unfold
from hypothesis import given
from hypothesis import strategies as st
from test_runs_writers import plant

from executors.process import logs
from executors.process.folding import LineFolder
from executors.process.logs import LogReader, LogWriter, position_of_tail, position_of_time
from neva_recipes.config import RunError
from neva_recipes.run_directory.state import State, write_state


def fold(lines, world_size):
    folder = LineFolder(world_size)
    return [*folder.feed(lines), *folder.flush()]


def test_64_ranks_become_readable():
    texts = ["loading", "step 1 loss 2.5", "step 2 loss 2.4"]
    said = [[f"[{rank}] {text}" for text in texts] for rank in range(64)]
    said[7].insert(1, "[7] a sample could not be read")
    waiting, lines = list(range(64)), []
    shuffle = random.Random(1)
    while waiting:
        rank = shuffle.choice(waiting)
        lines.append(said[rank].pop(0))
        waiting = [rank for rank in waiting if said[rank]]
    loading, *middle, last = fold(lines, 64)
    assert (loading, last) == ("[0-63] loading", "[0-63] step 2 loss 2.4")
    assert sorted(middle) == ["[0-63] step 1 loss 2.5", "[7] a sample could not be read"]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), max_size=60), st.booleans())
def test_folding_loses_and_reorders_nothing_of_a_rank(said, by_pieces):
    lines = [f"[{rank}] {text}" for rank, text in said]
    folder = LineFolder(6)
    folded = []
    for line in lines:
        folded += folder.feed([line])
        if by_pieces:
            folded += folder.flush()
    folded += folder.flush()
    assert unfold(folded) == unfold(lines)
    assert len(folded) <= len(lines)


def test_folding_waits_for_a_silent_rank_within_bounds():
    folder, count = LineFolder(2), 0
    for number in range(5000):
        count += len(list(folder.feed([f"[0] {number}"])))
        assert number - count < 1000
    assert count + len(list(folder.flush())) == 5000


def test_lines_of_no_rank_stay_where_they_are():
    lines = ["[0] a", "[1] a", "--- attempt 2 ---", "[1] a", "[0] a", "[12 bytes of log could not be written]"]
    assert fold(lines, 2) == ["[0-1] a", lines[2], "[0-1] a", lines[5]]


@given(st.lists(st.text(alphabet="aü\n", max_size=8), max_size=8), st.integers(0, 12), st.integers(1, 9))
def test_last_lines(tmp_path_factory, pieces, count, block):
    path = tmp_path_factory.mktemp("log") / "log"
    text = "".join(pieces)
    path.write_text(text)
    before, logs._BLOCK = logs._BLOCK, block
    try:
        reader = LogReader(path, position_of_tail(path, count))
        found = reader.read_lines() + reader.read_rest()
    finally:
        logs._BLOCK = before
    lines = text.split("\n") if not text.endswith("\n") else text.split("\n")[:-1]
    lines = lines if text else []
    assert found == (lines[-count:] if count else [])


def test_lines_since_a_time(tmp_path, monkeypatch):
    clock = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: clock)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    log = tmp_path / "rank-0.log"
    times = []
    for attempt in range(2):
        writer = LogWriter(log)
        for number in range(300):
            clock += [0.5, 3.0, 90.0][number % 7 % 3]
            times.append(clock)
            writer.write(b"%.1f attempt %d\n" % (clock, attempt))
        writer.close()
    for moment in (0.0, times[0], times[250] + 1, times[431], times[-1], clock + 60):
        position = position_of_time(log, moment)
        shown = [float(line.split()[0]) for line in LogReader(log, position).read_lines()]
        must = [passed for passed in times if passed >= moment]
        assert shown[len(shown) - len(must) :] == must
        assert all(passed > moment - 2 * 10 for passed in shown)


def test_times_of_a_clock_that_was_set_back(tmp_path, monkeypatch):
    clock = 5000.0
    monkeypatch.setattr(time, "time", lambda: clock)
    log = tmp_path / "joined.log"
    for clock in (5000.0, 5100.0, 1000.0, 1100.0):
        writer = LogWriter(log)
        writer.write(b"%d\n" % clock)
        writer.close()
    assert LogReader(log, position_of_time(log, 1050.0)).read_lines() == ["1100"]
    # Of lines with later times nobody can say that they came before.
    assert len(LogReader(log, position_of_time(log, 990.0)).read_lines()) == 4


def test_logs_of_a_run(runs_dir):
    run = plant(runs_dir, "demo", world_size=2)
    write_state(run.path, State(state="succeeded", exit_code=0))
    (run.path / "logs").mkdir()
    log = run.path / "logs" / "joined.log"
    log.write_text("[0] a\n[1] a\n[1] b\n")
    assert list(run.logs(fold=True)) == ["[0-1] a", "[1] b"]
    assert list(run.logs(tail=2, follow=True)) == ["[1] a", "[1] b"]
    (run.path / "logs" / "rank-0.log").write_text("[1] looks like a prefix\n[0] so does this\n")
    assert list(run.logs(fold=True, rank=0)) == ["[1] looks like a prefix", "[0] so does this"]
    now = logs.time.time()
    moment = datetime.fromtimestamp(now, UTC)
    with pytest.raises(RunError, match="times of its lines were not kept: ask for one rank's lines, or for the last N"):
        run.logs(since=moment)
    (log.with_suffix(".times")).write_text(f"{now - 100:.3f} 0\n{now + 50:.3f} 6\n{now}")
    assert list(run.logs(since=moment)) == ["[1] a", "[1] b"]
    os.truncate(log, 0)
    assert list(run.logs(since=moment)) == []
