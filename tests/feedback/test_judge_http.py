"""A judge behind a server, against a real one on this machine that does what servers do."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from xpo import Completion, FeedbackError, Group
from xpo.feedback import judge_http
from xpo.feedback.judge_http import HttpJudge
from xpo.feedback.judges import Judge, JudgeOptions, Question, find_judge
from xpo.train.settings import ModelSettings

Body = Mapping[str, Any]
#: What a server does with a request: (status, JSON or bytes), or (status, JSON, headers).
Act = Callable[[Body], tuple[Any, ...]]


class Service:
    """A server that answers each request by a function, and what it was asked."""

    def __init__(self) -> None:
        self.act: Act = lambda body: (200, chat("1"))
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with service.lock:
                    service.seen.append(body)
                    service.headers.append(dict(self.headers))
                    service.paths.append(self.path)
                    service.now += 1
                    service.most = max(service.most, service.now)
                status, content, *more = service.act(body)
                with service.lock:
                    service.now -= 1
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in (more[0] if more else {}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client waits no longer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def chat(text: str | None, tops: Mapping[str, float] | None = None, usage: tuple[int, int] | None = (30, 1)) -> Any:
    """A chat completion; log-probabilities and usage where they are given."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    if tops is not None:
        listed = [{"token": token, "logprob": value} for token, value in tops.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": listed}]}
    counted = {} if usage is None else {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return {"choices": [choice], **counted}


def judging(service: Service, spec: str = "openai:tiny", **options: Any) -> Judge:
    judge = find_judge(spec, {}, ModelSettings(), JudgeOptions(url=service.url, **options))
    judge.bind(None, tiny.tokenizer())
    server = judge.ask.server if isinstance(judge.ask, HttpJudge) else judge.ask.writer  # type: ignore[attr-defined]  # a server
    server.pause = 0.001
    return judge


def questions(count: int) -> list[Question]:
    """Questions about w1 and w2, each for a prompt of its own."""
    first, second = Completion([1, tiny.EOS]), Completion([2, tiny.EOS])
    return [Question(Group([3 + n], source={"prompt": f"w{3 + n}"}), first, second) for n in range(count)]


def shows_first(body: Body, word: str) -> bool:
    return f"[Answer 1]\n{word}\n" in body["messages"][0]["content"]


def test_the_log_probabilities_of_1_and_2_in_both_orders(service: Service) -> None:
    in_order, turned = {"1": -0.5, "2": -1.5, "The": -0.1}, {"1": -0.7, "2": -0.9, " 1": -5.0, " 2": -3.0}
    service.act = lambda body: (200, chat("The", in_order if shows_first(body, "w1") else turned))
    judge = judging(service)
    p_ab, p_ba = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.2))
    assert judge.compare(questions(3)) == pytest.approx([(p_ab + 1 - p_ba) / 2] * 3)
    body = service.seen[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 1, 0)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert service.paths == ["/v1/chat/completions"] * 6
    assert (judge.tally.read, judge.tally.written) == (6 * 30, 6)
    assert (judge.tally.asked, judge.tally.flips) == (3, 3)
    assert "Authorization" not in service.headers[0]


def test_the_tokens_that_have_the_probability_count(service: Service) -> None:
    tops = {"1": -20.0, "2": -12.0, " 1": -0.1, " 2": -2.1}
    service.act = lambda body: (200, chat(" 1", tops))
    judge = judging(service)
    judge.both_orders = False
    assert judge.compare(questions(1)) == pytest.approx([1 / (1 + math.exp(-2.0))])


@pytest.mark.parametrize("tops", [None, {}, {"1": -0.1}, {"1": -math.inf, "2": -math.inf}])
def test_without_log_probabilities_the_word_counts(service: Service, tops: dict[str, float] | None) -> None:
    service.act = lambda body: (200, chat("1" if shows_first(body, "w1") else " 2", tops, usage=None))
    judge = judging(service)
    assert judge.compare(questions(2)) == [1.0, 1.0]
    assert judge.tally.read == 0


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_log_probabilities_is_asked_without(service: Service, status: int) -> None:
    service.act = lambda body: (status, {"error": "logprobs"}) if "logprobs" in body else (200, chat("2"))
    judge = judging(service, concurrency=1)
    judge.both_orders = False
    assert judge.compare(questions(3)) == [0.0] * 3
    assert ["logprobs" in body for body in service.seen] == [True, False, False, False]
    assert "top_logprobs" not in service.seen[-1]


def test_a_question_that_is_refused_does_not_cost_the_others_their_log_probabilities(service: Service) -> None:
    tops = {"1": -1.0, "2": -1.0}
    service.act = lambda body: (400, {}) if "\nw3\n" in body["messages"][0]["content"] else (200, chat("1", tops))
    judge = judging(service, concurrency=1)
    assert judge.compare(questions(2)) == [None, 0.5]
    assert judge.tally.failed == {"HTTP 400": 1}


def failing(times: int, *answer: Any) -> Act:
    """Answers so badly at first, a number of times a question, and then well."""
    left: dict[str, int] = {}
    lock = threading.Lock()

    def act(body: Body) -> tuple[Any, ...]:
        with lock:
            key = body["messages"][0]["content"]
            left[key] = left.get(key, times) - 1
            return answer if left[key] >= 0 else (200, chat("1" if shows_first(body, "w1") else "2"))

    return act


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_passes_is_tried_again(service: Service, status: int) -> None:
    service.act = failing(2, status, {"error": "busy"})
    judge = judging(service, retries=2)
    assert judge.compare(questions(2)) == [1.0, 1.0]
    assert len(service.seen) == 4 * 3
    assert not judge.tally.failed


def test_waits_double_and_a_server_may_say_how_long(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(judge_http.time, "sleep", waits.append)
    service.act = lambda body: (500, {})
    judge = judging(service, retries=3, concurrency=1)
    judge.both_orders = False
    judge.compare(questions(1))
    assert waits == pytest.approx([0.001, 0.002, 0.004])
    waits.clear()
    service.act = lambda body: (429, {}, {"Retry-After": "7"})
    judge.compare(questions(1))
    assert waits == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("answer", "reason", "attempts"),
    [
        ((500, {}), "HTTP 500", 3),
        ((400, {}), "HTTP 400", 2),  # once with and once without log-probabilities
        ((301, {}), "HTTP 301", 1),
        ((200, b"<html>"), "no JSON", 1),
        ((200, b"\xff\xfe"), "no JSON", 1),
        ((200, {"choices": []}), "no chat completion", 1),
        ((200, ["?"]), "no chat completion", 1),
        ((200, chat("Answer 1 is better")), "unparsable", 1),
        ((200, chat(None)), "unparsable", 1),
    ],
)
def test_a_question_that_fails_has_no_verdict_and_is_counted(
    service: Service, answer: tuple[Any, ...], reason: str, attempts: int
) -> None:
    service.act = lambda body: answer
    judge = judging(service, retries=2)
    assert judge.compare(questions(2)) == [None, None]
    assert judge.tally.failed == {reason: 2}
    assert len(service.seen) == 4 * attempts
    assert judge.tally.metrics()["judge/failed"] == 1.0
    assert any(reason in line for line in judge.tally.lines())


def test_a_silent_server_is_waited_for_only_so_long(service: Service) -> None:
    quiet = threading.Event()

    def act(body: Body) -> tuple[Any, ...]:
        if "\nw4\n" in body["messages"][0]["content"]:
            quiet.wait(20)
        return 200, chat("1" if shows_first(body, "w1") else "2")

    service.act = act
    judge = judging(service, timeout=0.3, retries=1)
    try:
        assert judge.compare(questions(3)) == [1.0, None, 1.0]
    finally:
        quiet.set()
    assert judge.tally.failed == {"timeout": 1}


@pytest.mark.parametrize("limit", [1, 3])
def test_only_so_many_questions_are_under_way(service: Service, limit: int) -> None:
    together = threading.Barrier(limit)

    def act(body: Body) -> tuple[Any, ...]:
        if service.seen[0] is not body:  # the first question ever goes alone
            together.wait(10)  # goes on only when as many as allowed are there at once
            time.sleep(0.01)
        return 200, chat("1")

    service.act = act
    judge = judging(service, concurrency=limit)
    judge.both_orders = False
    assert judge.compare(questions(1 + 3 * limit)) == [1.0] * (1 + 3 * limit)
    assert service.most == limit


def test_the_answers_stay_with_their_questions(service: Service) -> None:
    def act(body: Body) -> tuple[Any, ...]:
        number = next(n for n in range(12) if f"\nw{3 + n}\n" in body["messages"][0]["content"])
        time.sleep(0.002 * (12 - number))  # the last are done first
        return 200, chat("1", {"1": -float(number), "2": 0.0})

    service.act = act
    judge = judging(service, concurrency=12)
    judge.both_orders = False
    expected = [1 / (1 + math.exp(n)) for n in range(12)]
    assert judge.compare(questions(12)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("status", "key", "message"),
    [
        (401, "sk-secret", "does not accept the key in OPENAI_API_KEY"),
        (401, None, "wants a key in OPENAI_API_KEY"),
        (404, "sk-secret", "no such model"),
    ],
)
def test_what_is_wrong_with_all_questions_ends_at_the_first(
    service: Service, monkeypatch: pytest.MonkeyPatch, status: int, key: str | None, message: str
) -> None:
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    service.act = lambda body: (status, {"error": "no"})
    judge = judging(service)
    with pytest.raises(FeedbackError) as error:
        judge.compare(questions(5))
    assert message in str(error.value)
    assert service.url in str(error.value)
    assert "sk-secret" not in str(error.value) + repr(judge) + repr(judge.ask.server)  # type: ignore[attr-defined]  # it is a served one
    assert len(service.seen) == 1
    assert service.headers[0].get("Authorization") == (None if key is None else f"Bearer {key}")


def test_nobody_at_the_address(service: Service) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        service.url = f"http://someone:password@127.0.0.1:{taken.getsockname()[1]}"  # bound, and not listening
        with pytest.raises(FeedbackError, match=r"nobody answers at --judge_url, http://127\.0\.0\.1") as error:
            judging(service).compare(questions(1))
    assert "password" not in str(error.value)


def test_a_server_that_goes_away_later_costs_only_verdicts(service: Service) -> None:
    judge = judging(service, retries=1)
    judge.both_orders = False
    assert judge.compare(questions(1)) == [1.0]
    service.server.shutdown()
    service.server.server_close()
    assert judge.compare(questions(2)) == [None, None]
    assert judge.tally.failed == {"no connection": 2}


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_be_written_in_several_ways(service: Service, path: str) -> None:
    service.url += path
    judging(service).compare(questions(1))
    assert set(service.paths) == {"/v1/chat/completions"}


def test_a_template_of_ones_own(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("{prompt}|{first}|{second}")
    judging(service, template=str(tmp_path / "mine.txt")).compare(questions(1))
    assert [body["messages"][0]["content"] for body in service.seen] == ["w3|w1|w2", "w3|w2|w1"]


def test_a_rubric_scores_each_answer_once_and_prefers_the_higher_mean(service: Service) -> None:
    given: dict[str, list[str]] = {"w1": ["Score: 4", "Score: 1", "?"], "w2": ["Score: 2", "Score: 2", "Score: 2"]}
    lock = threading.Lock()

    def act(body: Body) -> tuple[Any, ...]:
        text = body["messages"][0]["content"]
        word = next(word for word in given if f"[Answer]\n{word}\n" in text)
        with lock:
            return 200, chat(given[word].pop())

    service.act = act
    judge = judging(service, "rubric:openai:tiny")
    assert not judge.both_orders
    (question,) = questions(1)
    # 2.5 of what could be read, against 2; the second question turns the two, and asks nothing new.
    assert judge.compare([question, Question(question.group, question.second, question.first)]) == [1.0, 0.0]
    assert len(service.seen) == 6
    assert (judge.tally.read, judge.tally.written) == (180, 6)
    assert service.seen[0]["temperature"] > 0
    assert service.seen[0]["max_tokens"] > 50


@pytest.mark.parametrize(
    ("replies", "verdict", "failed"),
    [
        ({"w1": "Score: 3", "w2": "Score: 3"}, 0.5, {}),
        ({"w1": "Score: 3", "w2": "Fine."}, None, {"unparsable": 1}),
        ({"w1": "Fine.", "w2": "Score: 0"}, None, {"unparsable": 1}),
        ({"w1": 500, "w2": "Score: 0"}, None, {"HTTP 500": 1}),
    ],
)
def test_a_rubric_without_a_score_has_no_verdict(
    service: Service, replies: dict[str, Any], verdict: float | None, failed: dict[str, int]
) -> None:
    def act(body: Body) -> tuple[Any, ...]:
        reply = replies[next(word for word in replies if f"[Answer]\n{word}\n" in body["messages"][0]["content"])]
        return (reply, {}) if isinstance(reply, int) else (200, chat(reply))

    service.act = act
    judge = judging(service, "rubric:openai:tiny", retries=0)
    assert judge.compare(questions(1)) == [verdict]
    assert judge.tally.failed == failed
