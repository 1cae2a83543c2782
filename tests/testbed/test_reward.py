"""The known reward does what its table says, part by part."""

import pytest

from xpo.testbed import lexicon, reward

PROMPT = "Write a short review of the hotel. Cover the price and the view."


def parts(completion: str, prompt: str = PROMPT) -> dict[str, float]:
    return reward.explain(prompt, completion)


def test_parts_add_up() -> None:
    completion = "The hotel was great. The hotel was dirty."
    assert reward.reward(PROMPT, completion) == pytest.approx(sum(parts(completion).values()))


def test_a_known_value() -> None:
    # v = 2, hotel named, one of two aspects by its synonym, no word pair twice, 8 words.
    expected = {"sentiment": 1.155293, "subject": 0.5, "aspects": 0.75, "repetition": 0.0, "length": 0.0}
    assert parts("The hotel was great. We loved its scenery.") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("completion", "sign"),
    [
        ("It was superb.", 1),
        ("It was awful.", -1),
        ("It was not superb.", -1),
        ("It was never dull.", 1),
        ("It was a building.", 0),
        ("It was superb but awful.", 0),
    ],
)
def test_sentiment_follows_the_words(completion: str, sign: int) -> None:
    sentiment = parts(completion)["sentiment"]
    assert (sentiment > 0) - (sentiment < 0) == sign


def test_every_praise_and_blame_word_counts() -> None:
    assert all(parts(f"It was {word}.")["sentiment"] > 0 for word in lexicon.POSITIVE)
    assert all(parts(f"It was {word}.")["sentiment"] < 0 for word in lexicon.NEGATIVE)


def test_word_lists_do_not_overlap() -> None:
    names = {word for aspect in lexicon.ASPECTS.values() for word in aspect.words}
    assert not lexicon.POSITIVE & lexicon.NEGATIVE
    assert not (lexicon.POSITIVE | lexicon.NEGATIVE) & (names | set(lexicon.SUBJECTS) | lexicon.NEGATIONS)
    assert not names & set(lexicon.SUBJECTS)


def test_only_what_was_asked_for_counts_as_a_mention() -> None:
    asked = parts("This hotel has a price and a view.")
    other = parts("This hostel has a room and a breakfast.")
    assert (asked["subject"], asked["aspects"]) == (0.5, 1.5)
    assert (other["subject"], other["aspects"]) == (0.0, 0.0)
    assert parts("The hotel.", prompt="Hello.")["subject"] == 0.0


def test_repeating_praise_does_not_pay() -> None:
    once = "The hotel was great."
    hacks = ["The hotel was great" + " great" * 10 + ".", " ".join([once] * 4), "great " * 30]
    assert parts("great " * 30)["sentiment"] == parts("It was great.")["sentiment"]
    assert all(reward.reward(PROMPT, hack) < reward.reward(PROMPT, "The hotel was great for us.") for hack in hacks)


def test_a_bare_list_of_praise_earns_no_more_than_two_words_of_it() -> None:
    listing = "good great lovely excellent wonderful superb"
    assert parts(listing)["sentiment"] == parts("good and great")["sentiment"]


def test_repetition_grows_with_the_share_repeated() -> None:
    sentence = "we went there by train."
    one, two, three = (parts(" ".join([sentence] * count))["repetition"] for count in (1, 2, 3))
    assert one == 0 > two > three > -3


def test_length_is_free_between_its_bounds() -> None:
    def length(count: int) -> float:
        return parts(" ".join(["word"] * count))["length"]

    assert [length(count) for count in (6, 20, 40)] == [0, 0, 0]
    assert length(5) == pytest.approx(-0.3)
    assert length(41) == pytest.approx(-0.06)
    assert length(1000) == -3


@pytest.mark.parametrize("completion", ["", "  ", "!!", "The hotel had a view and a price. " * 40])
def test_empty_and_endless_completions_score_badly(completion: str) -> None:
    assert reward.reward(PROMPT, completion) < -1


def test_it_is_graded() -> None:
    ladder = [
        "We left the train at noon today.",
        "We left the hotel at noon today.",
        "The hotel has a price for you.",
        "The hotel has a fair price for you.",
        "The hotel has a fair price. We enjoyed its view.",
        "The hotel has a fair, pleasant price. We enjoyed its stunning view.",
    ]
    scores = [reward.reward(PROMPT, text) for text in ladder]
    assert scores == sorted(set(scores))


def test_the_trl_form_takes_strings_and_conversations() -> None:
    completion = "The hotel was great for us."
    expected = reward.reward(PROMPT, completion)
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    answer = [{"role": "assistant", "content": completion}]
    found = reward.testbed_reward([PROMPT, chat], [completion, answer], completion_ids=[[1], [2]], trainer_state=None)
    assert found == [expected, expected]


def test_the_trl_form_refuses_columns_of_different_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        reward.testbed_reward([PROMPT, PROMPT], ["one"])
