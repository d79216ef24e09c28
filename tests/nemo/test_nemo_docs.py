"""docs/nemo.md says of every key what the code does with it."""

import itertools
import re
import typing
from pathlib import Path

from neva_recipes.config import ConvTemplate, field_types
from neva_recipes.nemo import RULES, translate
from neva_recipes.nemo.rules import Configuration, Unusable
from neva_recipes.nemo.translation import GROUPS

TEXT = (Path(__file__).parents[2] / "docs" / "nemo.md").read_text(encoding="utf-8")
TABLE = TEXT.partition("## The table of keys")[2]
ROWS = re.findall(r"^\| (`[\w.*]+`(?:, `[\w.*]+`)*) \| ([^|]+) \| ([^|]*) \|$", TABLE, re.MULTILINE)


USED = Configuration(
    {
        "exp_manager.ema.enable": True,
        "exp_manager.create_early_stopping_callback": True,
        "model.tokenizer.library": "megatron",
    }
)
"""What makes keys count that belong to something that may be off."""


def test_the_table_is_that_of_the_code():
    expected = [
        (", ".join(f"`{rule.key}`" for rule in rules), becomes, remark)
        for (becomes, remark), rules in itertools.groupby(RULES, key=lambda rule: (rule.becomes, rule.remark))
    ]
    assert expected == [row for row in ROWS if row[0] != "key of NeMo"]


def test_no_key_has_two_rules():
    keys = [rule.key for rule in RULES]
    assert len(keys) == len(set(keys))


def test_fields_of_the_table_are_fields():
    fields = {f"{group}.{name}" for group, cls in GROUPS.items() for name in field_types(cls)} | {"name"}
    named = {name for rule in RULES if rule.becomes.startswith("`") for name in re.findall(r"`([\w.]+)`", rule.becomes)}
    assert named - fields == set()


def test_what_is_always_so_is_so():
    checked = 0
    for rule in RULES:
        written = re.fullmatch(r"always ((?:`[^`]*`(?: or )?)+)", rule.becomes)
        if not written or rule.key.endswith("tokenizer.library"):
            continue
        for value in re.findall("`([^`]*)`", written[1]):
            meant = {"null": None, "True": True, "False": False, "[]": [], "['_self_']": ["_self_"]}.get(value, value)
            meant = float(meant) if isinstance(meant, str) and re.fullmatch(r"[\d.]+", meant) else meant
            assert rule.decide(meant, Configuration({rule.key: meant})).kind == "same", rule.key
            checked += 1
        try:
            assert rule.decide("something else", USED).kind == "cannot", rule.key
        except Unusable:
            continue
    assert checked > 40


def test_the_table_of_templates():
    needed = {f"model.{key}": 8 for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads")}
    needed |= {f"model.{key}": 8 for key in ("encoder_seq_length", "micro_batch_size", "global_batch_size")}
    table = TEXT.partition("## Templates")[2].partition("## The table")[0]
    rows = re.findall(r"^\| (`.*?) \| (`\w+`|none) \|", table, re.M)
    named = [(name, ours) for names, ours in rows for name in re.findall(r"`(\w+)`", names) if name != "conv_template"]
    assert len(named) == 10
    for name, ours in named:
        translation = translate({**needed, "model.data.conv_template": name})
        found = translation.settings.get("data.conv_template")
        assert (f"`{found.value}`" if found else "none") == ours
        assert found is None or found.value in typing.get_args(ConvTemplate)
