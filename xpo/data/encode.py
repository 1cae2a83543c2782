"""One row's texts and their token ids: what a tokenizer or a chat template adds is settled here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.data.rows import Content, Row
from xpo.errors import DataError, ModelError

Ids = list[int]

#: How far from the end of a completion its end-of-turn token may be: templates end with "\n" after it.
_TAIL = 4


class Encoder:
    """A tokenizer with the rules for BOS, EOS and chat templates that training needs."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        special = set(tokenizer.all_special_ids)
        special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        # Tokens that may close a turn: <|im_end|>, <|eot_id|> and others are special without being the EOS.
        self._ends = special - {self.bos, tokenizer.pad_token_id, tokenizer.unk_token_id} | {self.eos}

    def texts(self, row: Row, prompt: Content | None = None) -> list[str]:
        """The prompt as text, then prompt and completion for each completion. ``prompt`` replaces the row's own."""
        prompt = row.prompt if prompt is None else prompt
        if isinstance(prompt, str):
            return [prompt, *(prompt + str(answer.content) for answer in row.answers)]
        messages = [list(answer.content) for answer in row.answers if not isinstance(answer.content, str)]
        continued = prompt[-1]["role"] == "assistant" and not any(said[0]["role"] == "tool" for said in messages)
        texts = [self._render(row, prompt, continue_final_message=continued, add_generation_prompt=not continued)]
        for said in messages:
            whole = _continue(prompt, said) if continued else [*prompt, *said]
            texts.append(self._render(row, whole))
            self._check_calls(row, whole, len(said), texts[-1])
        return texts

    def ids(self, texts: Sequence[str], *, rendered: bool) -> list[Ids]:
        """Token ids of texts; those a chat template ``rendered`` hold their special tokens already."""
        if not texts:
            return []
        encoded: list[Ids] = self.tokenizer(
            list(texts), add_special_tokens=not rendered, padding=False, truncation=False, verbose=False
        )["input_ids"]
        if rendered:
            return encoded
        return [self._plain(text, ids) for text, ids in zip(texts, encoded, strict=True)]

    def start(self) -> Ids:
        """What stands for an empty prompt: the first completion token needs something to be predicted from."""
        first = self.eos if self.bos is None else self.bos
        if first is None:
            raise ModelError(
                "The prompt is empty and the tokenizer has neither a BOS nor an EOS token to stand for it; "
                "set tokenizer.eos_token, or fill the prompts"
            )
        return [first]

    def finish(self, ids: Ids, *, rendered: bool) -> Ids:
        """A completion with its end: exactly one EOS after text, the template's own end of turn after messages."""
        if rendered and self._closed(ids):
            return ids
        if self.eos is None:
            raise ModelError(
                "The tokenizer has no EOS token, so the model could not learn where a completion ends; "
                "set tokenizer.eos_token and save the tokenizer beside the model"
            )
        while ids and ids[-1] == self.eos:
            ids = ids[:-1]
        return [*ids, self.eos]

    def _plain(self, text: str, ids: Ids) -> Ids:
        if len(ids) > 1 and ids[0] == ids[1] == self.bos:
            ids = ids[1:]  # the text begins with a BOS of its own
        if ids and ids[-1] == self.eos and not text.endswith(str(self.tokenizer.eos_token)):
            # A tokenizer that appends EOS by itself would put one between prompt and completion.
            ids = ids[:-1]
        return ids

    def _closed(self, ids: Ids) -> bool:
        for number in reversed(ids[-_TAIL:]):
            if number in self._ends:
                return True
            if self.tokenizer.decode([number]).strip():
                return False
        return False

    def _check_calls(self, row: Row, messages: list[dict[str, Any]], said: int, text: str) -> None:
        """Refuse a completion of ``said`` messages whose tool calls the chat template leaves out of ``text``."""
        if not any(message.get("tool_calls") for message in messages[-said:]):  # an empty list calls nothing
            return
        silent = [{key: value for key, value in message.items() if key != "tool_calls"} for message in messages[-said:]]
        try:
            without = self._render(row, [*messages[:-said], *silent])
        except DataError:
            return  # a template that minds their absence writes them
        if without == text:
            raise DataError(
                f"{row.place}: the completion calls tools, and the chat template does not write 'tool_calls', so they "
                "would not be learned; give a template that does with --chat_template_path, or write them into content"
            )

    def _render(self, row: Row, messages: list[dict[str, Any]], **options: bool) -> str:
        if self.tokenizer.chat_template is None:
            raise ModelError(
                f"The data is conversational ({row.place}), but the model's tokenizer has no chat template; "
                f"use an instruct model, give a template with --chat_template_path, or use data of plain text"
            )
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, **options, **row.template)
        except Exception as error:  # templates raise what they like
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"{row.place}: the chat template refuses the messages of {roles}: {error}") from error
        return str(text)


def _continue(prompt: list[dict[str, Any]], said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation in which the completion goes on with the prompt's last message instead of opening another."""
    text = (prompt[-1].get("content") or "") + (said[0].get("content") or "")
    return [*prompt[:-1], {**said[0], "content": text}, *said[1:]]
