import pytest
import torch

from neva_model.inference import chat
from neva_model.inference.opening import open_model
from neva_model.inference.options import Sampling
from neva_model.inference.session import Session
from neva_recipes.config import CheckpointError, DataError, UserError
from neva_recipes.prompts.conversation import Turn
from tests.inference.tiny_models import END_TOKEN, SEQUENCE_LIMIT, oracle_answer


def test_every_turn_of_a_conversation_about_an_image_is_answered_as_transformers_answers(llava, llava_oracle, pictures):
    picture = pictures / "picture 0.png"
    session = Session(llava, Sampling(max_new_tokens=12))
    session.show_image(picture)
    turns = []
    for question in ("What is in the picture?", "Is it odd or even?", "Which digit is this?"):
        turns.append(Turn("human", question, image=not turns))
        answer = "".join(session.ask(question))
        assert answer == oracle_answer(llava_oracle, llava, turns, picture, 12).lstrip()
        turns.append(Turn("gpt", answer.rstrip()))
    other = pictures / "picture 1.png"
    session.show_image(other)
    about_other = "".join(session.ask("What is in the picture?"))
    assert (
        about_other
        == oracle_answer(
            llava_oracle, llava, [Turn("human", "What is in the picture?", image=True)], other, 12
        ).lstrip()
    )
    assert about_other != turns[1].text
    session.reset()
    assert (
        "".join(session.ask("What?")) == oracle_answer(llava_oracle, llava, [Turn("human", "What?")], None, 12).lstrip()
    )


def test_a_text_only_model_chats_with_a_template(llama, llama_oracle):
    session = Session(llama, Sampling(max_new_tokens=12))
    assert (
        "".join(session.ask("Which digit?"))
        == oracle_answer(llama_oracle, llama, [Turn("human", "Which digit?")], None, 12).lstrip()
    )
    with pytest.raises(DataError, match="text-only model: it cannot look at x"):
        session.show_image("x")


def test_without_a_template_text_is_continued_where_it_ends(llama_run, llama_oracle, llama):
    opened = open_model(llama_run)
    assert opened.template is None
    session = Session(opened, Sampling(max_new_tokens=12))
    text = "The assistant gives"
    tokens = torch.tensor([[1, *llama.tokenizer.encode_text(text, prefix=True)]])
    with torch.no_grad():
        generated = llama_oracle.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False
        )[0]
    whole = llama.tokenizer.decode(generated.tolist())
    assert whole.startswith(text)
    for _ in range(2):
        # The second time nothing of the first is remembered.
        assert text + "".join(session.ask(text)) == whole


def test_stage_one_describes_the_image_again_for_every_question(llava_directory, pictures):
    session = Session(open_model(llava_directory, "plain"), Sampling(max_new_tokens=12))
    with pytest.raises(DataError, match="conv_template=plain takes one question with <image>"):
        list(session.ask("What is this?"))
    session.show_image(pictures / "picture 0.png")
    assert "".join(session.ask("What is this?")) == "".join(session.ask("And what is that?"))


def test_why_an_answer_was_cut_off(llava_directory):
    endless = open_model(llava_directory)
    with torch.no_grad():
        endless.model.language.output_layer.weight[END_TOKEN] = 0.0
    session = Session(endless, Sampling(max_new_tokens=3))
    list(session.ask("What?"))
    assert session.notice == "cut off after 3 tokens; --max-new-tokens allows more"
    long = Session(endless, Sampling(max_new_tokens=SEQUENCE_LIMIT))
    list(long.ask("What is that? " * 30))
    assert long.notice == f"cut off: the conversation has reached the model's limit of {SEQUENCE_LIMIT} tokens"
    with pytest.raises(DataError, match=f"the model's limit is {SEQUENCE_LIMIT}"):
        list(long.ask("What is that? " * 100))


def test_an_answer_given_up_half_way_is_forgotten(llava):
    session = Session(llava, Sampling(max_new_tokens=12))
    whole = "".join(session.ask("What is this?"))
    interrupted = Session(llava, Sampling(max_new_tokens=12))
    pieces = interrupted.ask("Which digit?")
    next(pieces)
    pieces.close()
    assert "".join(interrupted.ask("What is this?")) == whole


def test_a_run_answers_as_the_directory_it_was_made_from(llava, llava_run, pictures):
    answers = []
    for opened in (llava, open_model(llava_run), open_model(llava_run / "checkpoints" / "step-00000007")):
        session = Session(opened, Sampling(max_new_tokens=20))
        session.show_image(pictures / "picture 0.png")
        answers.append("".join(session.ask("What is in the picture?")))
    assert answers[0] and answers.count(answers[0]) == 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens=0"),
        ({"temperature": -0.1}, "--temperature=-0.1"),
        ({"temperature": float("nan")}, "--temperature=nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p=0"),
        ({"temperature": 1.0, "top_p": 1.5}, "--top-p=1.5"),
        ({"temperature": 1.0, "top_k": 0}, "--top-k=0"),
        ({"temperature": 1.0, "seed": -1}, "--seed=-1"),
        ({"top_p": 0.9}, "^--top-p: .*set --temperature"),
        ({"top_k": 5, "seed": 3}, "^--top-k and --seed: .*set --temperature"),
    ],
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        Sampling(**settings)


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt_asks_nothing(prompt, tmp_path):
    with pytest.raises(UserError, match=r"^--prompt is empty: expected a question"):
        chat.main([str(tmp_path), f"--prompt={prompt}"])


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a run directory nor a checkpoint"):
        open_model(tmp_path / "nowhere")
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(CheckpointError, match="the run has no checkpoint yet"):
        open_model(tmp_path)
