"""Prompts and reviews say what they were made from; the corpus is broad."""

import random
from statistics import mean

from xpo.testbed import grammar, world
from xpo.testbed.lexicon import SUBJECTS
from xpo.testbed.reward import asked, reward, words


def test_every_prompt_is_read_back_as_its_topic() -> None:
    for topic in world.topics():
        for prompt in topic.prompts():
            subjects, aspects = asked(prompt)
            assert (subjects, set(aspects)) == ([topic.subject], set(topic.aspects))


def test_prompts_are_distinct() -> None:
    prompts = [prompt for topic in world.topics() for prompt in topic.prompts()]
    assert len(set(prompts)) == len(prompts)


def test_facts_are_known_by_one_answer_each() -> None:
    answers = {split: {(f.subject, f.completion) for f in world.facts(split)} for split in world.SPLITS}
    assert answers["train"] == answers["validation"] == answers["test"]
    assert len({f.answer for f in world.facts("test")}) == 3 * len(SUBJECTS)
    assert all(f.completion.endswith(f"{f.answer}.") for f in world.facts("train"))
    assert all(f.subject in words(f.prompt) for f in world.facts("train"))


def test_reviews_are_filled_in_and_varied() -> None:
    rng = random.Random(0)
    topics = world.topics()
    written = [(topic.prompts()[0], grammar.review(topic, rng)) for topic in rng.choices(topics, k=1500)]
    assert not any(mark in text for _, text in written for mark in "{}")
    assert all(text[0].isupper() and text[-1] in ".!?" for _, text in written)
    assert len({word for _, text in written for word in words(text)}) > 400
    scores = sorted(reward(prompt, text) for prompt, text in written)
    assert scores[len(scores) // 10] < 0 < mean(scores) < 1.5 < scores[-len(scores) // 20]


def test_a_seed_is_a_review() -> None:
    topic = world.topics()[0]
    assert grammar.review(topic, random.Random(5)) == grammar.review(topic, random.Random(5))
    assert world.split_prompts(seed=1) == world.split_prompts(seed=1) != world.split_prompts(seed=2)
