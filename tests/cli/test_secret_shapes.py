"""What counts as a secret: names of variables, and the looks of texts; and what does not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neva_recipes import gpt, llava, neva
from neva_recipes.config import RecipeError, RunError, check_value, format_value, iterate_fields, parse_value
from neva_recipes.secrets import (
    assigned_secret,
    is_secret,
    is_secret_name,
    mask,
    secret_in,
    secret_names,
    secret_values,
)

# None of these was ever valid; each has the form its issuer documents.
SHAPES = {
    "a Hugging Face token": ["hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"],
    "a password in a URL": ["https://me:hunter2secret@example.org/a", "s3://key:hunter2secret@bucket/data.json"],
    "a secret in a URL": [
        "https://example.org/a.json?token=hunter2secret",
        "https://example.org/a.json?x=1&api_key=hunter2secret&y=2",
        "https://b.s3.amazonaws.com/a?X-Amz-Signature=hunter2secret",
    ],
    "an API key": ["sk-" + "a1B2" * 12, "sk-proj-" + "a-_1B2c3" * 5, "sk-ant-api03-" + "a-_1B2c3" * 5],
    "a GitHub token": ["ghp_" + "a1B2" * 9, "gho_" + "a1B2" * 9, "github_pat_" + "11ABC_" * 5],
    "a GitLab token": ["glpat-" + "a1B2-" * 4],
    "an AWS key": ["AKIA" + "IOSFODNN7EXAMPLE"],
    "an NVIDIA key": ["nvapi-" + "a1B2-_" * 8],
    "a Weights & Biases key": ["wandb_v1_" + "a1B2" * 8],
    "an npm token": ["npm_" + "a1B2" * 9],
    "a PyPI token": ["pypi-AgEIcHlwaS5vcmc" + "a1B2" * 4],
    "a Docker token": ["dckr_pat_" + "a1B2" * 6],
    "a Google key": ["AIza" + "a1B2-" * 7],
    "a Slack token": ["xoxb-" + "123456789012-abcdef"],
    "a JSON web token": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"],
    "an authorization": ["Authorization: Bearer " + "a1B2" * 6],
    "a private key": ["-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
}

ORDINARY = [
    "/data/hf_checkpoints/llava-v1.5-7b",
    "hf_internal_testing_tiny_random_model_for_tests",
    "lmsys/vicuna-7b-v1.5",
    "openai/clip-vit-large-patch14-336",
    "/mnt/disk-sk-learn/task-finetune-long-directory-name-2024-01-01",
    "sk-learn-digits-dataset-version-2",
    "runs/llava.finetune-20250101-120000/checkpoints/step-00005198",
    "https://huggingface.co/liuhaotian/llava-v1.5-7b/resolve/main/data.json?download=true",
    "https://example.org:8080/a@b",
    "ssh://git@github.com/me/data",
    "user@host:/data/train.json",
    "a=b&tokenizer=c.model",
    "file.json?tokens=3",
    "AKIAN.json",
    "tokens.model",
    "it's a key: value",
    "add it as KEY=VALUE or --api-key VALUE",
    "-----BEGIN CERTIFICATE-----",
    "8f14e45fceea167a5a36dedd4bea2543",  # a digest
    "chaîne ünïcode 模型",
    "",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SHAPES.items() for text in texts])
def test_what_looks_secret(kind, text):
    for surrounded in (text, f"/folder/{text}", f"say '{text}', twice"):
        assert secret_in(surrounded) == kind
        hidden = mask(surrounded)
        assert "***" in hidden and "hunter2secret" not in hidden and text not in hidden
        assert mask(hidden) == hidden
    with pytest.raises(RecipeError, match=f"^data.data_path: holds {kind}") as raised:
        parse_value(str, text, "data.data_path")
    assert text not in str(raised.value)


@pytest.mark.parametrize("text", ORDINARY)
def test_what_does_not(text):
    assert secret_in(text) is None and mask(text) == text
    if text and "-----" not in text:
        assert parse_value(str, text, "data.data_path") == text


# In shell, options, JSON, YAML, TOML and HTTP: a name that tells of a secret is given a value.
ASSIGNED = [
    "export WANDB_API_KEY=abc123",
    "export DB_PASSWORD=x",
    "DB_PASSWORD=x cmd",
    "--env TOKEN=abc",
    "--env=TOKEN=abc",
    "-e TOKEN=abc",
    "-eWANDB_API_KEY=abc",
    "--export=ALL,KEY=abc",
    '--export=ALL,A=1,HF_TOKEN="x y"',
    "setenv WANDB_API_KEY abc",
    "set -gx WANDB_API_KEY abc",
    "declare -x A_SECRET='abc'",
    "TOKEN+=abc",
    'API_KEY="abc$X"',
    "API_KEY=${API_KEY:-abc}",
    'WANDB_API_KEY = "abc"',
    '{"password": "x"}',
    "{'api_key': 'abc', \"n\": 1}",
    "{WANDB_API_KEY: abc}",
    "{A: b, DB_PASSWORD: x}",
    "cmd --password hunter2",
    "cmd --password=hunter2",
    "cmd --api-key abc",
    "cmd --token a1b2c3d4e5",
    'curl -H "X-Api-Key: abc123" x',
    "curl -H 'Authorization: Basic dXNlcjpwYXNz' x",
    "curl -u me:hunter2 https://x",
    "sshpass -p hunter2 ssh x",
    "docker login -u me -p hunter2",
    "wandb login 8f14e45fceea167a5a36dedd4bea2543",
    "true; export A=1 B_TOKEN=x",
    "apiKey=abc",
    'dbPassword: "x" accessToken="a1b2c3d4"',
    "if true; then PGPASSWORD=x psql; fi",
    "(TOKEN=abc)",
    "env AWS_SECRET_ACCESS_KEY=abc/def+x cmd",
    "printf '%s' \"$(KEY=abc cmd)\"",
    "echo machine x login y password z > ~/.netrc --password z",
    "echo machine api.wandb.ai login user password hunter2 > ~/.netrc",
    'python -c \'import os; os.environ["DB_PASSWORD"] = "hunter2"\'',
    "A_SECRET[0]=abc",
    ": ${DB_PASSWORD:=hunter2}",
    "cmd ${DB_PASSWORD:-hunter2}",
    "export DB_PASSWORD=$(echo hunter2)",
    "export DB_PASSWORD=`echo hunter2 | tr a b`",
    "printf -v DB_PASSWORD hunter2",
    "read DB_PASSWORD <<< hunter2",
    "aws configure set aws_secret_access_key abc",
    "echo aws_secret_access_key = abc",
    "password: hunter2",
    'echo "api_key: abc" >> f',
    "curl -H 'authorization: bearer abc' x",
    "curl -H 'Authorization: a1b2c3d4' x",
    "cmd --oauth2-bearer a1b2c3d4",
    "python -c \"import wandb; wandb.login(key='8f14e45f')\"",
    "export DBPASS=abc ADMIN_PW=abc",
]

# The same names without a value of their own, and names that tell of none.
NOT_ASSIGNED = [
    "export A=$WANDB_API_KEY",
    "export WANDB_API_KEY=$(cat ~/.key)",
    'export WANDB_API_KEY="$(cat ~/.key)"',
    "export WANDB_API_KEY=`cat ~/.key`",
    "export WANDB_API_KEY=${KEY}",
    "export WANDB_API_KEY=${KEY:-}",
    'export WANDB_API_KEY="${KEY:?is not set}"',
    "WANDB_API_KEY=",
    "export WANDB_API_KEY",
    'AUTH_HEADER="Bearer $TOKEN"',
    "--env TOKEN",
    "--export=ALL",
    "-e TOKEN",
    "pad_token=<pad>",
    "eos_token=</s>",
    "max_tokens=512",
    "MAX_TOKENS=4096",
    "sort --key=2",
    "TOKENIZERS_PARALLELISM=false",
    '[ "$TOKEN" == "x" ]',
    "KEY_FILE=/home/me/key",
    "--password-file=/home/me/pw",
    "USE_AUTH=1",
    "it's a key: value",
    "add it as KEY=VALUE or --api-key VALUE",
    "a=b&tokenizer=c.model",
    "file.json?tokens=3",
    "--token $HF_TOKEN",
    'curl -H "Authorization: Bearer $TOKEN" x',
    "source /opt/key/env.sh",
    "num_tokens: 5, token=5",
    "image_token=<image>",
    "export PATH=/opt/bin:$PATH",
    "--mpi=pmix",
    "ssh -i key host",
    "executor.pass_env: HF_TOKEN: is not set",
    "HF_TOKEN was set for run x and is not stored in it",
    "--token-budget 5",
    "docker login --password-stdin",
    "cmd --auth=none",
    "monkey=banana",
    "--user=1000:1000",
    "PWD=/home/me",
    "wandb login --relogin $WANDB_API_KEY",
    "read -s TOKEN < ~/.token",
    "python -m key --password-stdin <x",
    "step 10/100  loss 3.2  tokens 1,234/s",
    "api_key=env:MY_KEY",
    "NCCL_IB_PKEY=0x8001",
    "MAX_TOKENS_PER_IMAGE=64",
    "MAX_TOKEN_LENGTH=4096",
    "export DB_PASSWORD=$(echo $X | base64 -d)",
    "cmd ${HF_TOKEN:+--login} ${TOKEN:-}",
    "test -n ${API_KEY:-unset}",
    "api_key = os.getenv('X')",
    "password: see the wiki of the lab",
    "Authorization: needed",
    "set HF_TOKEN in the environment",
    "read TOKEN <<< $X",
]


@pytest.mark.parametrize("text", ASSIGNED)
def test_what_is_given_to_a_secret_name(text):
    name = assigned_secret(text)
    assert name and name in (secret_in(text) or "")
    hidden = mask(text)
    assert "***" in hidden and mask(hidden) == hidden
    assert not re.search(r"abc|hunter2|8f14e45f|a1b2c3d4|dXNl|\bx y\b", hidden.replace("$X", ""))
    for annotation, value in ((str, text), (list[str], f"[{text}]"), (dict[str, str], None)):
        with pytest.raises(
            RecipeError, match=r"^executor.setup(\.a)?: holds .*in lines of shell write \$\w+ in its"
        ) as raised:
            if value is None:
                check_value(annotation, {"a": text}, "executor.setup")
            else:
                parse_value(annotation, value, "executor.setup")
        assert "\n" not in str(raised.value)
    for words in (["--password", "hunter2"], ["docker", "login", "-p", "hunter2"]):
        with pytest.raises(RecipeError, match=r"^executor.srun: holds a"):
            check_value(list[str], words, "executor.srun")


@pytest.mark.parametrize("text", NOT_ASSIGNED)
def test_what_is_not(text):
    assert assigned_secret(text) is None and secret_in(text) is None and mask(text) == text


@given(st.text(alphabet="aK_E\"'Y=:{}$() -\\,TOKEN", max_size=60))
def test_masking_is_done_once(text):
    hidden = mask(text)
    assert mask(hidden) == hidden
    assert assigned_secret(hidden) is None


@pytest.mark.parametrize(
    "piece", ["a-", "a=", 'a="', "a=$(", "a=${", "login ", "curl ", "--a ", '"a":', "{a: ", "set -x "]
)
def test_a_long_line_is_no_trap(piece):
    """What ranks print comes in pieces of 64 KiB; a pattern that tries each end for each beginning takes minutes."""
    assert mask(piece * (65536 // len(piece)))


@pytest.mark.parametrize(
    ("piece", "masked"),
    [
        ("-eyJaaaaaaaaaaaa", None),
        ("+a", None),
        ("DB_PASSWORD=abcd1234 ", "DB_PASSWORD=*** "),
        ("https://someone:abcd1234@host/", "https://someone:***@host/"),
        ("/", None),
        ("'", None),
    ],
)
def test_a_line_of_a_megabyte_is_masked_whole(piece, masked):
    """One look at the rest of the line for each piece of it would take hours."""
    count = 2**20 // len(piece)
    end = " https://someone:abcd1234@host"
    assert mask(piece * count + end) == (masked or piece) * count + " https://someone:***@host"


def test_no_recipe_of_ours_looks_secret():
    for make in (llava.pretrain, llava.finetune, neva.pretrain, neva.finetune, gpt.pretrain):
        for field in iterate_fields(make()):
            assert secret_in(format_value(field.value)) is None and not secret_in(field.path)


@pytest.mark.parametrize(
    ("secret", "names"),
    [
        (
            True,
            "HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN "
            "PGPASSWORD MYSQL_PWD SSHPASS GITHUB_PAT GH_TOKEN NGC_API_KEY OPENAI_APIKEY my_api_key hfToken SECRET "
            "DB_PASSWD GPG_PASSPHRASE GOOGLE_CREDENTIALS PROXY_AUTH HTTP_AUTHORIZATION SESSION_COOKIE KEY2 "
            "AZURE_STORAGE_KEYS LDAP_PASS JWT DBPASS ADMIN_PW",
        ),
        (
            False,
            "TOKENIZERS_PARALLELISM TOKENIZER AUTHOR PATH PYTHONPATH PWD OLDPWD NETRC HF_TOKEN_PATH SSH_AUTH_SOCK "
            "AWS_SHARED_CREDENTIALS_FILE NCCL_DEBUG NCCL_IB_PKEY OMP_NUM_THREADS KEYBOARD COMPASS BYPASS HF_HOME "
            "CUDA_VISIBLE_DEVICES MASTER_ADDR PASSIVE SECRETARY PATTERN",
        ),
    ],
)
def test_names_of_variables(secret, names):
    wrong = [name for name in names.split() if is_secret_name(name) is not secret]
    assert not wrong


def test_values_of_variables():
    assert is_secret("http_proxy", "http://me:hunter2secret@proxy:3128")
    assert not is_secret("http_proxy", "http://proxy:3128")
    environ = {
        "HF_TOKEN": "longer-than-eight",
        "X_KEY": "longer-than-eight-and-more",
        "PIN_KEY": "1234",
        "PEM_KEY": "first line of it\nsecond line of it",
        "HOME": "/home/somebody",
    }
    assert secret_names(environ) == ["HF_TOKEN", "PEM_KEY", "PIN_KEY", "X_KEY"]
    text = "1234 longer-than-eight-and-more longer-than-eight second line of it /home/somebody"
    assert mask(text, secret_values(environ)) == "1234 *** *** *** /home/somebody"


@given(
    st.text(max_size=20), st.sampled_from([text for texts in SHAPES.values() for text in texts]), st.text(max_size=20)
)
def test_masking_works_in_any_surroundings(before, text, after):
    hidden = mask(f"{before} {text} {after}")
    assert text not in hidden and "hunter2secret" not in hidden
    assert mask(hidden) == hidden


def test_messages_never_hold_one(monkeypatch):
    token = SHAPES["a Hugging Face token"][0]
    monkeypatch.setenv("MY_SECRET", "of no known shape")
    error = RunError(f"no run {token!r} in of no known shape")
    assert str(error) == "no run '***' in ***" and token not in repr(error)
