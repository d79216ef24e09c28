import pytest
import torch

from neva_model.inference.generate import choose_tokens, complete, generate, sequence_limit
from neva_model.inference.options import Sampling
from neva_recipes.config import DataError
from tests.inference.tiny_models import IMAGE_SIZE, SEQUENCE_LIMIT, TOKENS_PER_IMAGE

IMAGE_TOKEN_INDEX = -200


def prompts(rows, length, images_per_row, seed=0, vocabulary=300):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocabulary, (rows, length), generator=generator)
    for image in range(images_per_row):
        start = 2 + image * (TOKENS_PER_IMAGE + 3)
        tokens[:, start : start + TOKENS_PER_IMAGE] = IMAGE_TOKEN_INDEX
    images = torch.randn(rows * images_per_row, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return tokens, images


@torch.no_grad()
def transformers_greedy(oracle, tokens, images, new_tokens, image_row):
    generated = oracle.generate(
        input_ids=tokens.where(tokens != IMAGE_TOKEN_INDEX, image_row),
        attention_mask=torch.ones_like(tokens),
        **({"pixel_values": images} if len(images) else {}),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return generated[:, tokens.shape[1] :].tolist()


@torch.no_grad()
def recomputed_greedy(model, tokens, images, new_tokens):
    sequence = tokens
    for _ in range(new_tokens):
        positions = torch.arange(sequence.shape[1]).expand(sequence.shape)
        sequence = torch.cat([sequence, model(sequence, positions, images)[:, -1:].argmax(-1)], dim=1)
    return sequence[:, tokens.shape[1] :].tolist()


@pytest.mark.parametrize(
    ("rows", "length", "images_per_row"), [(1, 9, 1), (3, 24, 1), (2, 33, 2), (5, 40, 3), (2, 12, 0)]
)
def test_greedy_equals_transformers_and_full_recompute(llava, llava_oracle, rows, length, images_per_row):
    tokens, images = prompts(rows, length, images_per_row, seed=length)
    answers = complete(
        generate(llava.model, tokens, images, sampling=Sampling(max_new_tokens=40), stop_token_ids=()), ()
    )
    image_row = llava_oracle.config.image_token_index
    assert answers == transformers_greedy(llava_oracle, tokens, images, 40, image_row)
    assert answers == recomputed_greedy(llava.model, tokens, images, 40)
    assert len({token for answer in answers for token in answer}) > 10, "answers must vary for this to mean something"


def test_greedy_of_a_text_only_model_equals_transformers(llama, llama_oracle):
    tokens, images = prompts(4, 17, 0)
    answers = complete(generate(llama.model, tokens, sampling=Sampling(max_new_tokens=60), stop_token_ids=()), ())
    assert answers == transformers_greedy(llama_oracle, tokens, images, 60, 0)


def test_a_prompt_of_one_token(llama, llama_oracle):
    tokens = torch.tensor([[1], [7]])
    answers = complete(generate(llama.model, tokens, sampling=Sampling(max_new_tokens=8), stop_token_ids=()), ())
    assert answers == transformers_greedy(llama_oracle, tokens, torch.empty(0), 8, 0)


def test_different_images_give_different_answers_and_features_stand_for_images(llava):
    tokens, images = prompts(1, 20, 1)
    asked = {"sampling": Sampling(max_new_tokens=20), "stop_token_ids": ()}
    make = lambda **given: complete(generate(llava.model, tokens, **asked, **given), ())  # noqa: E731
    first, second = make(images=images), make(images=-images)
    assert first != second
    with torch.no_grad():
        features = llava.model.image_features(images)
    assert make(image_features=features) == first


def test_each_row_stops_at_its_own_stop_token(llava):
    tokens, images = prompts(4, 24, 1)
    free = complete(generate(llava.model, tokens, images, sampling=Sampling(max_new_tokens=30), stop_token_ids=()), ())
    stop = free[0][5]
    expected = [row[: row.index(stop)] if stop in row else row for row in free]
    steps = list(generate(llava.model, tokens, images, sampling=Sampling(max_new_tokens=30), stop_token_ids={stop}))
    assert complete(iter(steps), {stop}) == expected
    for number, step in enumerate(steps):
        for row, token in enumerate(step):
            assert (token is None) == (stop in free[row][:number])


def test_generation_ends_when_every_row_has(llava):
    tokens, images = prompts(1, 24, 1)
    free = complete(generate(llava.model, tokens, images, sampling=Sampling(max_new_tokens=30), stop_token_ids=()), ())
    stop = free[0][5]
    steps = list(generate(llava.model, tokens, images, sampling=Sampling(max_new_tokens=30), stop_token_ids={stop}))
    assert steps[-1] == [stop]
    assert len(steps) == free[0].index(stop) + 1


def test_the_sequence_limit_ends_the_answer(llama):
    assert sequence_limit(llama.model) == SEQUENCE_LIMIT
    tokens, _ = prompts(2, SEQUENCE_LIMIT - 3, 0)
    assert len(list(generate(llama.model, tokens, sampling=Sampling(max_new_tokens=50), stop_token_ids=()))) == 3


def test_a_prompt_without_room_for_an_answer_is_refused(llama):
    tokens, _ = prompts(1, SEQUENCE_LIMIT, 0)
    with pytest.raises(DataError, match=f"takes {SEQUENCE_LIMIT} tokens.*limit is {SEQUENCE_LIMIT}"):
        next(generate(llama.model, tokens, sampling=Sampling(max_new_tokens=5), stop_token_ids=()))


def test_sampling_repeats_under_a_seed_and_only_under_it(llava):
    tokens, images = prompts(2, 24, 1)

    def sample(seed):
        steps = generate(
            llava.model,
            tokens,
            images,
            sampling=Sampling(max_new_tokens=25, temperature=1.5, seed=seed),
            stop_token_ids=(),
        )
        return complete(steps, ())

    assert sample(5) == sample(5)
    assert sample(5) != sample(6)
    assert sample(None) != sample(None)


def test_padding_of_the_vocabulary_is_never_sampled(llama):
    size = llama.tokenizer.vocab_size
    assert llama.model.language.vocab_size > size, "there must be padding for this to mean something"
    tokens, _ = prompts(64, 5, 0)
    steps = generate(
        llama.model, tokens, sampling=Sampling(max_new_tokens=20, temperature=1e6, seed=0), stop_token_ids=()
    )
    drawn = {token for row in complete(steps, ()) for token in row}
    assert max(drawn) < size
    assert len(drawn) > 0.9 * size, "a temperature this high draws nearly everything"


LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
DRAWS = 200_000


def frequencies(**settings):
    generator = torch.Generator().manual_seed(11)
    draws = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    drawn = choose_tokens(LOGITS.expand(DRAWS, -1).clone(), Sampling(**settings), draws)
    return torch.bincount(drawn, minlength=len(LOGITS)) / DRAWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"top_p": None, "top_k": None}, 6),
        ({"top_p": None, "top_k": 3}, 3),
        ({"top_p": None, "top_k": 100}, 6),
        ({"top_p": 1.0, "top_k": None}, 6),
        ({"top_p": 1e-9, "top_k": None}, 1),
    ],
)
def test_sampled_frequencies_are_those_of_the_softmax(temperature, limits, kept):
    expected = torch.zeros(len(LOGITS))
    expected[:kept] = (LOGITS[:kept] / temperature).exp()
    expected /= expected.sum()
    # Five standard deviations of the frequency of an even draw.
    assert (frequencies(temperature=temperature, **limits) - expected).abs().max() < 5 * 0.5 / DRAWS**0.5


def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p():
    probabilities = LOGITS.softmax(-1)
    assert probabilities[:2].sum() < 0.8 < probabilities[:3].sum()
    expected = torch.cat([probabilities[:3], torch.zeros(3)]) / probabilities[:3].sum()
    assert (frequencies(temperature=1.0, top_p=0.8, top_k=None) - expected).abs().max() < 5 * 0.5 / DRAWS**0.5
    # Among the three likeliest alone, the first two make up more than 0.8.
    assert probabilities[:2].sum() / probabilities[:3].sum() > 0.8
    assert (frequencies(temperature=1.0, top_p=0.8, top_k=3)[2:] == 0).all()


def test_a_draw_at_either_end_takes_a_token_that_can_be_drawn():
    """Of the three likeliest, which are neither the first nor the last of the vocabulary."""
    logits = torch.tensor([[-9.0, 1.0, -9.0, 3.0, 2.0, -9.0]]).expand(3, -1)
    draws = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert choose_tokens(logits, Sampling(temperature=1.0, top_k=3), draws).tolist() == [1, 3, 4]


def test_a_tiny_temperature_takes_the_likeliest():
    assert frequencies(temperature=1e-30, top_p=None, top_k=None)[0] == 1.0
