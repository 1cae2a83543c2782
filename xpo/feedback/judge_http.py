"""A language model behind an OpenAI-compatible server, such as vLLM, llama.cpp or a hosted one, as a judge."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2

from xpo.errors import FeedbackError, SettingError
from xpo.feedback.language_model import asked
from xpo.feedback.opinions import preferred
from xpo.feedback.parsing import PAIR, choice, read_template
from xpo.feedback.questions import Answers, Asker, JudgeOptions, Reply, Wording, Writer

#: Statuses worth another attempt, besides those of 500 and above.
_AGAIN = frozenset({408, 409, 425, 429})
#: Statuses that say something about all questions, and what.
_HOPELESS = {
    401: "does not accept the key in OPENAI_API_KEY",
    403: "does not allow this to the key in OPENAI_API_KEY",
    404: "has no such address or no such model",
}
#: Longest wait before another attempt, in seconds.
_LONGEST = 60.0
_PATH = "/chat/completions"


@dataclass
class Server(Writer):
    """An address where chats are completed.

    Attributes:
        url: address of the chat completions.
        model: the model, as the server calls it.
        timeout: seconds that the server may be silent for.
        retries: further attempts at a question after a timeout, a lost connection or a status of 429 or 500 and above.
        concurrency: questions under way at a time.
        key: sent as a bearer token, where there is one; it appears in no message.
        pause: seconds before the first further attempt, doubled with each.
        reached: whether it ever said anything.
        logprobs: whether it gives log-probabilities, as far as is known.
    """

    url: str
    model: str
    timeout: float = 60.0
    retries: int = 3
    concurrency: int = 8
    key: str | None = field(default=None, repr=False)
    pause: float = 0.5
    reached: bool = False
    logprobs: bool = True

    @classmethod
    def of(cls, model: str, options: JudgeOptions) -> Server:
        """The server that options name.

        Raises:
            SettingError: they name none.
        """
        url = (options.url or "").rstrip("/")
        if not url.startswith(("http://", "https://")):
            found = "is not given" if options.url is None else f"is '{options.url}'"
            raise SettingError(
                f"--judge openai:{model} asks a server, and --judge_url {found}; give its address, such as "
                "http://localhost:8000/v1 or https://api.openai.com/v1"
            )
        if not url.endswith(_PATH):
            url += _PATH if url.endswith("/v1") else f"/v1{_PATH}"
        key = os.environ.get("OPENAI_API_KEY") or None
        return cls(url, model, options.timeout, options.retries, options.concurrency, key)

    def complete(self, texts: Sequence[str], **settings: Any) -> list[Reply | str]:
        """The reply to each text, sent as the only message of a chat, or why there is none.

        Raises:
            FeedbackError: no question can be answered: nobody is there, or the key or the model is refused.
        """
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        with httpx2.Client(timeout=self.timeout, headers=headers, limits=limits) as client:

            def ask(text: str) -> Reply | str:
                messages = [{"role": "user", "content": text}]
                return self._asked(client, {"model": self.model, "messages": messages, **settings})

            # The first question ever goes alone: what is wrong with all of them shows in one.
            alone = 0 if self.reached else 1
            replies = [ask(text) for text in texts[:alone]]
            with ThreadPoolExecutor(self.concurrency) as pool:
                try:
                    return replies + list(pool.map(ask, texts[alone:]))
                except FeedbackError:
                    pool.shutdown(cancel_futures=True)
                    raise

    def write(self, texts: Sequence[str], samples: int, tokens: int, temperature: float) -> list[Reply | str]:
        repeated = [text for text in texts for _ in range(samples)]
        return self.complete(repeated, max_tokens=tokens, temperature=temperature)

    def _asked(self, client: httpx2.Client, body: Mapping[str, Any]) -> Reply | str:
        wants = "logprobs" in body
        bare = {key: value for key, value in body.items() if key not in ("logprobs", "top_logprobs")}
        if not wants or not self.logprobs:
            return self._attempted(client, bare)
        reply = self._attempted(client, body)
        if reply not in ("HTTP 400", "HTTP 422"):
            return reply
        # A server may refuse log-probabilities; then it answers without. It may as well refuse the question.
        reply = self._attempted(client, bare)
        if isinstance(reply, Reply):
            self.logprobs = False
        return reply

    def _attempted(self, client: httpx2.Client, body: Mapping[str, Any]) -> Reply | str:
        reason = ""
        wait = 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(wait)
            wait = min(self.pause * 2.0**attempt, _LONGEST)
            try:
                response = client.post(self.url, json=body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if not self.reached:
                    raise FeedbackError(f"nobody answers at --judge_url, {self._shown()}: {error}") from error
                reason = "no connection"
            except httpx2.TimeoutException:
                reason = "timeout"
            except httpx2.RequestError:
                reason = "connection lost"
            else:
                self.reached = True
                if response.status_code == 200:
                    return _read(response)
                reason = self._refused(response)
                if response.status_code < 500 and response.status_code not in _AGAIN:
                    return reason
                told = response.headers.get("retry-after", "")
                wait = min(float(told), _LONGEST) if told.isdecimal() else wait
        return reason

    def _refused(self, response: httpx2.Response) -> str:
        status = response.status_code
        if status in _HOPELESS:
            why = "wants a key in OPENAI_API_KEY" if self.key is None and status != 404 else _HOPELESS[status]
            raise FeedbackError(f"the judge's server, {self._shown()}, {why} (HTTP {status}, model '{self.model}')")
        return f"HTTP {status}"

    def _shown(self) -> str:
        """The address without a password that may stand in it."""
        return str(httpx2.URL(self.url).copy_with(username=None, password=None))


class HttpJudge(Asker):
    """Asks which of two answers is better: by the log-probabilities of "1" and "2", else by the word."""

    both_orders = True

    def __init__(self, server: Server, options: JudgeOptions) -> None:
        self.server = server
        self.template = read_template(options.template, PAIR)

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        texts = [asked(self.template, one) for one in questions]
        replies = self.server.complete(texts, max_tokens=1, temperature=0.0, logprobs=True, top_logprobs=20)
        heard = [reply for reply in replies if isinstance(reply, Reply)]
        return Answers(
            [reply if isinstance(reply, str) else _verdict(reply) for reply in replies],
            sum(reply.read for reply in heard),
            sum(reply.written for reply in heard),
        )


def _verdict(reply: Reply) -> float | str:
    pairs = [
        (reply.tops[one], reply.tops[two])
        for one, two in (("1", "2"), (" 1", " 2"))
        if math.isfinite(reply.tops.get(one, math.nan)) and math.isfinite(reply.tops.get(two, math.nan))
    ]
    if pairs:
        return preferred(*max(pairs, key=max))
    said = choice(reply.text)
    return "unparsable" if said is None else said


def _read(response: httpx2.Response) -> Reply | str:
    try:
        body = response.json()
    except ValueError:
        return "no JSON"
    try:
        first = body["choices"][0]
        text = str(first["message"]["content"] or "")
        told = (first.get("logprobs") or {}).get("content") or [{}]
        tops = {str(top["token"]): float(top["logprob"]) for top in told[0].get("top_logprobs") or ()}
        usage = body.get("usage") or {}
        read, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return "no chat completion"
    return Reply(text, tops, read, written)
