"""Answers that a script has made of the empty cells of a table are told from those that are meant."""

import json

from tests.plan.test_files import distinct, found, world

__all__ = ["world"]


def test_answers_that_were_empty_cells_are_told(world):
    folder, recipe = world
    cell = str(float("nan"))  # what a script writes that puts the cells of pandas between quotes

    def answered(*answers):
        records = [distinct(number) for number in range(len(answers))]
        for record, answer in zip(records, answers, strict=True):
            record["conversations"][1]["value"] = answer
        (folder / "chats.json").write_text(json.dumps(records))
        return found(recipe)

    ((code, severity, line),) = answered("yes", cell, "no", "NaN")
    assert (code, severity) == ("answers-nan", "warning")
    assert "sample 1: its answer is the word nan" in line and "2 of 4 samples looked at" in line
    # These can be meant: the name of a person, an answer about numbers, that there is nothing.
    assert answered("Nan", "Nan", cell, "none", "n/a", "null", "none", "nan bread", "nan bread") == []
