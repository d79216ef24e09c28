"""What counts as a secret: names of variables, and the looks of texts; and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neva_recipes import gpt, llava, neva
from neva_recipes.config import RecipeError, RunError, format_value, iterate_fields, parse_value
from neva_recipes.secrets import is_secret, is_secret_name, mask, secret_in, secret_names, secret_values

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
            "AZURE_STORAGE_KEYS LDAP_PASS JWT",
        ),
        (
            False,
            "TOKENIZERS_PARALLELISM TOKENIZER AUTHOR PATH PYTHONPATH PWD OLDPWD NETRC HF_TOKEN_PATH SSH_AUTH_SOCK "
            "AWS_SHARED_CREDENTIALS_FILE NCCL_DEBUG OMP_NUM_THREADS KEYBOARD COMPASS CUDA_VISIBLE_DEVICES HF_HOME "
            "MASTER_ADDR PASSIVE SECRETARY PATTERN",
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
