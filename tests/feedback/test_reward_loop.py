"""What TRL hands to reward functions beside the data, and functions that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
from transformers import TrainerState

from tests import tiny
from tests.feedback.test_rewards import COMPLETIONS, CONFIG, GROUPS, scored
from xpo import Completion, FeedbackError, Group
from xpo.feedback.judge_functions import FunctionJudge
from xpo.feedback.questions import Question, Wording
from xpo.feedback.rewards import find_rewards
from xpo.feedback.verdicts import Feedback


def feedback(*functions: Any) -> Feedback:
    return Feedback(tiny.tokenizer(), find_rewards(list(functions), None, {}, CONFIG))


def judged(told: Feedback) -> list[list[float | None]]:
    return [verdict.samples for verdict in told.verdicts(GROUPS, COMPLETIONS)]


def shaped(completions: list[str], trainer_state: Any, log_metric: Callable[..., None], **_: Any) -> list[float]:
    """As TRL's documentation shapes rewards by how far training has come."""
    log_metric("progress", trainer_state.global_step / trainer_state.max_steps)
    return [float(trainer_state.global_step)] * len(completions)


def test_functions_see_the_trainer_as_it_is_now() -> None:
    told, state = feedback(shaped), TrainerState(global_step=3, max_steps=12)
    told.attend(lambda: state)
    assert judged(told) == [[3.0, 3.0], [3.0, 3.0]]
    assert told.logged() == {"progress": [0.25]}
    state = TrainerState(global_step=6, max_steps=12)  # the trainer makes a new one when it starts
    judged(told)
    assert told.logged() == {"progress": [0.5]}  # of the last samples only


def test_without_a_trainer_its_state_is_left_to_the_function() -> None:
    """Labelling and tables judge samples too, and train nothing."""
    with pytest.raises(FeedbackError, match=r"^reward 'shaped' asks for trainer_state.*default: trainer_state=None$"):
        judged(feedback(shaped))

    def careful(completions: list[str], trainer_state: Any = None, **more: Any) -> list[float]:
        assert "trainer_state" not in more
        return [0.0 if trainer_state is None else 1.0] * len(completions)

    assert judged(feedback(careful)) == [[0.0, 0.0], [0.0, 0.0]]
    told = feedback(careful)
    told.attend(TrainerState)
    assert judged(told) == [[1.0, 1.0], [1.0, 1.0]]


def test_all_keywords_of_trl_reach_a_function_that_takes_any() -> None:
    seen: dict[str, Any] = {}

    def look(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0] * 4

    told, state = feedback(look), TrainerState()
    told.attend(lambda: state)
    judged(told)
    assert set(seen) == {
        "prompts",
        "completions",
        "completion_ids",
        "level",
        "trainer_state",
        "log_metric",
        "log_extra",
    }
    assert seen["trainer_state"] is state


def test_a_column_of_the_data_does_not_take_their_place() -> None:
    group = Group([1], source={"prompt": "w1", "log_metric": "a column"})

    def look(completions: list[str], log_metric: Callable[..., None], **_: Any) -> list[float]:
        log_metric("seen", 1)
        return [0.0]

    told = feedback(look)
    told.verdicts([group], [[Completion([3])]])
    assert told.logged() == {"seen": [1.0]}


def test_what_is_told_of_completions_finds_its_completion() -> None:
    def explain(completions: list[str], log_extra: Callable[..., None], **_: Any) -> list[float]:
        log_extra("words", [len(text.split()) for text in completions])
        return [0.0] * len(completions)

    told = feedback(explain, lambda completions, **_: [0.0] * len(completions))
    judged(told)
    found = [told.told(group, one) for group, some in zip(GROUPS, COMPLETIONS, strict=True) for one in some]
    assert found == [{"words": 1}, {"words": 2}, {"words": 2}, {"words": 0}]
    assert told.told(GROUPS[0], Completion([9, 9])) == {}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda log_metric, **_: log_metric("share", "much"),
            r"reward '<lambda>': log_metric('share', ...) takes a number",
        ),
        (lambda log_extra, **_: log_extra("why", ["x"]), "log_extra('why', ...) has 1 values for 4 completions"),
    ],
)
def test_what_cannot_be_logged_is_said_by_the_name_of_the_function(function: Any, message: str) -> None:
    with pytest.raises(FeedbackError) as error:
        scored(function)
    assert message in str(error.value)


# Coroutines


async def slow(completions: list[str], log_metric: Callable[..., None], **_: Any) -> list[float]:
    await asyncio.sleep(0)
    log_metric("asked", len(completions))
    return [float(len(text)) for text in completions]


class Object:
    async def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)


def test_coroutines_are_waited_for_beside_other_functions() -> None:
    told = feedback(lambda **_: [100.0] * 4, slow, Object(), functools.partial(slow))
    assert judged(told) == [[105.0, 111.0], [111.0, 101.0]]
    assert told.logged() == {"asked": [4.0, 4.0]}


def test_coroutines_wait_together() -> None:
    """Each waits for the other, which one after the other would never end."""
    here: dict[str, asyncio.Event] = {}

    def meeting(own: str, other: str) -> Callable[..., Any]:
        async def meet(**_: Any) -> list[float]:
            for name in (own, other):
                here.setdefault(name, asyncio.Event())
            here[own].set()
            await asyncio.wait_for(here[other].wait(), 5)
            return [1.0] * 4

        return meet

    assert scored(meeting("a", "b"), meeting("b", "a")) == [[2.0, 2.0], [2.0, 2.0]]


def test_coroutines_stay_on_one_loop_and_work_within_another() -> None:
    """A client of a server is of no use on another loop, and a notebook has a running one."""
    loops = []

    async def look(**_: Any) -> list[float]:
        loops.append(asyncio.get_running_loop())
        return [0.0] * 4

    async def notebook() -> None:
        scored(look)

    scored(look)
    asyncio.run(notebook())
    assert loops[0] is loops[1]


async def broken(**_: Any) -> list[float]:
    raise KeyError("answer")


def test_a_coroutine_that_fails_is_named() -> None:
    with pytest.raises(FeedbackError, match=r"^reward 'broken' raised KeyError: 'answer'$"):
        scored(slow, broken)


def test_judges_may_be_coroutines() -> None:
    async def first(prompts: list[str], completions: list[Any], **_: Any) -> list[float]:
        return [0.75] * len(prompts)

    question = Wording("w1", "w2", "w3", Question(GROUPS[0], *COMPLETIONS[0]))
    assert FunctionJudge("first", first)([question]).values == [0.75]
    with pytest.raises(FeedbackError, match=r"^judge 'broken' raised KeyError"):
        FunctionJudge("broken", broken)([question])
