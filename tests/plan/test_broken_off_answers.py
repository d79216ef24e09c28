"""Answers that hold what ends an answer in the template are told before a training teaches half of them."""

import json

from tests.plan.test_files import distinct, found, world

__all__ = ["world"]


def test_captions_of_several_lines_are_told_where_a_line_ends_them(world):
    folder, recipe = world

    def answered(*answers):
        records = [distinct(number) for number in range(len(answers))]
        for record, answer in zip(records, answers, strict=True):
            record["conversations"][1]["value"] = answer
        (folder / "chats.json").write_text(json.dumps(records))
        return found(recipe)

    assert answered("a coin\nof clay", "yes") == []
    recipe.data.conv_template = "plain"
    assert answered("a coin", "a line break at the end is none of it\n") == []
    ((code, severity, line),) = answered("a coin", "a vase\nof bronze", "a shield\r\nof wood")
    assert (code, severity) == ("answers-broken-off", "warning")
    assert "sample 1: its answer holds a line break" in line and "2 of 3 samples looked at" in line
