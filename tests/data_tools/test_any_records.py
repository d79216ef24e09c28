"""Whatever a record holds, the check tells an error if and only if the reader that training uses refuses it."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from neva_recipes.config import DataError
from neva_recipes.data_tools.check import check_files
from neva_recipes.data_tools.kinds import KINDS
from neva_recipes.data_tools.settings import Settings
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.samples import read_sample
from neva_recipes.prompts.templates import TEMPLATES, get_template

TEXTS = st.sampled_from(
    ["", " ", "What?", "<image>", "<image>\nWhat?", "<image><image>", "nan", "ü\ud800", "a.jpg", "<|image_1|>", "a\nb"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
ROLES = st.sampled_from(["human", "gpt", "system", "user", "Assistant ", "tool", "", 3, None])
TURN_FIELDS = ("value", "content", "role", "from", "label", "loss", "weight", "image", "tool_calls", "vlaue")
TURNS = st.lists(
    st.fixed_dictionaries({"from": ROLES, "value": TEXTS | JSON})
    | st.dictionaries(st.sampled_from(TURN_FIELDS), ROLES | TEXTS | JSON, max_size=3)
    | JSON,
    max_size=5,
)
FIELDS = (
    "id",
    "image",
    "images",
    "image_path",
    "video",
    "tools",
    "system",
    "mask",
    "objects",
    "text",
    "caption",
    "sytem",
)
RECORDS = st.builds(
    lambda turns, others: {**turns, **others},
    st.fixed_dictionaries({"conversations": TURNS | JSON})
    | st.fixed_dictionaries({"messages": TURNS}, optional={"conversations": JSON})
    | st.dictionaries(TEXTS, JSON, max_size=2),
    st.dictionaries(st.sampled_from(FIELDS), TEXTS | JSON, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=8), st.sampled_from(sorted(TEMPLATES)))
def test_an_error_is_told_if_and_only_if_training_refuses_the_record(tmp_path_factory, records, template):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_text(json.dumps(records))
    (report,) = check_files([path], Settings(template, 2048, 576), lambda progress: None).files
    errors = {number for kind, one in report.found.items() if KINDS[kind].severity == "error" for number in one.numbers}
    silent = set(report.found["no-loss"].numbers) if "no-loss" in report.found else set()
    for number, record in enumerate(json.loads(path.read_text())):
        try:
            read_sample(record, get_template(template))
        except NothingToLearn:
            assert number in silent, record
        except DataError:
            assert number in errors and number not in silent, record
        else:
            assert number not in errors, (record, report.found)
