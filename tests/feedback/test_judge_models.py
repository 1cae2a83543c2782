"""Models that judge: preference models, reward models, and language models that are asked, the policy among them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests import tiny
from xpo import Batch, Completion, FeedbackError, Group, SettingError
from xpo.feedback import language_model, rubric
from xpo.feedback.judge_models import PreferenceJudge, RewardJudge
from xpo.feedback.judges import Judge, JudgeOptions, Question, find_judge
from xpo.feedback.language_model import LanguageModel, LanguageModelJudge
from xpo.feedback.questions import Reply
from xpo.feedback.rubric import RubricJudge
from xpo.models.scoring import PLAIN, score
from xpo.models.zero import Zero
from xpo.train.settings import ModelSettings

CONFIG = ModelSettings(dtype="float32")
#: Words of the policy, and more with which questions can be put and answered.
WORDS = [*tiny.WORDS, "1", "2", "better:", "|", "Score:", "[end]"]
TEMPLATE = "{prompt} | {first} | {second} better:"

PROMPTS = ["w1 w2", "w3", "w4 w5 w6", "w7"]
ANSWERS = [
    (Completion([8, tiny.EOS]), Completion([9, 10, 11, 12, tiny.EOS])),
    (Completion([13, 14, tiny.EOS]), Completion([15, tiny.EOS])),
    (Completion([tiny.EOS]), Completion([16, 17, 18], finished=False)),
    (Completion([19, 0, tiny.EOS]), Completion([0, 0, 20, tiny.EOS])),
]
QUESTIONS = [
    Question(Group([WORDS.index(word) for word in prompt.split()], row=row, source={"prompt": prompt}), *answers)
    for row, (prompt, answers) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
]


def asking_tokenizer(*, spaced: bool = False) -> PreTrainedTokenizerFast:
    """Words and the answers; if ``spaced``, a space belongs to the token behind it, as in byte-level vocabularies."""
    words = [*WORDS, *(" " + word for word in WORDS)] if spaced else WORDS
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    pieces = pre_tokenizers.Split(Regex(r" ?(?:w\d+|\d|[^\s\d]+)|\s"), "isolated")
    core.pre_tokenizer = pieces if spaced else pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")
    made.clean_up_tokenization_spaces = False
    return made


def asked_model(seed: int = 3, vocabulary: int = len(WORDS)) -> LlamaForCausalLM:
    return tiny.model(seed, vocabulary=vocabulary)


@pytest.fixture
def template(tmp_path: Path) -> str:
    path = tmp_path / "question.txt"
    path.write_text(TEMPLATE)
    return str(path)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A language model that can be asked, on disk."""
    asked_model().save_pretrained(tmp_path / "asked")
    asking_tokenizer().save_pretrained(tmp_path / "asked")
    return tmp_path / "asked"


def found(spec: Any, template: str | None = None) -> Judge:
    judge = find_judge(str(spec), {}, CONFIG, JudgeOptions(template=template))
    judge.bind(None, tiny.tokenizer())
    return judge


def texts(question: Question) -> tuple[str, str, str]:
    tokenizer = tiny.tokenizer()
    decoded = [tokenizer.decode(one.ids, skip_special_tokens=True) for one in (question.first, question.second)]
    return question.group.source["prompt"], decoded[0], decoded[1]


def says_first(model: torch.nn.Module, prompt: str, first: str, second: str) -> float:
    """exp(l1) / (exp(l1) + exp(l2)) from the model's own logits, one text at a time."""
    text = TEMPLATE.format(prompt=prompt, first=first, second=second)
    ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
    with torch.no_grad():
        logits = model(ids).logits[0, -1].double()
    one, two = (float(logits[WORDS.index(answer)]) for answer in "12")
    return math.exp(one) / (math.exp(one) + math.exp(two))


def by_hand(model: torch.nn.Module, question: Question) -> float:
    prompt, first, second = texts(question)
    return (says_first(model, prompt, first, second) + 1 - says_first(model, prompt, second, first)) / 2


def test_a_language_model_is_asked_in_both_orders(asked: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = found(asked, template)
    assert judge.name == "asked"
    expected = [by_hand(asked_model(), question) for question in QUESTIONS]
    assert max(expected) - min(expected) > 0.05
    assert judge.compare(QUESTIONS) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(language_model, "ROWS", 3)
    assert judge.compare(QUESTIONS) == pytest.approx(expected, abs=1e-5)
    words = sum(len(TEMPLATE.format(prompt=p, first=a, second=b).split()) for p, a, b in map(texts, QUESTIONS))
    assert judge.tally.read == 2 * 2 * words
    assert judge.tally.in_both == 8


def test_the_policy_judges_as_it_is_and_stays_as_it_was(template: str) -> None:
    policy = get_peft_model(asked_model(), LoraConfig(task_type="CAUSAL_LM", r=2, lora_dropout=0.5))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    policy.train()
    judge = found("self", template)
    with pytest.raises(FeedbackError, match="there is none yet"):
        judge.compare(QUESTIONS)
    judge.bind(policy, asking_tokenizer())
    state = torch.get_rng_state()
    first = judge.compare(QUESTIONS)
    assert policy.training
    assert all(module.training for module in policy.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.requires_grad == ("lora" in name) for name, weight in policy.named_parameters())
    assert first == pytest.approx([by_hand(policy.eval(), question) for question in QUESTIONS], abs=1e-5)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    # The policy has moved on, and so has the judge.
    assert judge.compare(QUESTIONS) == pytest.approx([by_hand(asked_model(), one) for one in QUESTIONS], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "spaced", "one"),
    [
        ("w1 better:", False, "1"),  # the space is no part of a token
        ("w1 better:", True, " 1"),  # though "1" could follow it, too
        ("w1 better:\n", True, "1"),
        ("w1 better: ", True, " 1"),  # with the space that the question ends in, it is one token more
    ],
)
def test_the_answer_is_the_token_that_follows_the_question(text: str, spaced: bool, one: str) -> None:
    tokenizer = asking_tokenizer(spaced=spaced)
    model = asked_model(vocabulary=len(tokenizer))
    ids, first, second = LanguageModel(model, tokenizer)._ids(text, choices=True)
    assert tokenizer.convert_ids_to_tokens([first, second]) == [one, one.replace("1", "2")]
    assert ids == tokenizer(text)["input_ids"]


def test_a_tokenizer_without_the_answers_is_refused(template: str) -> None:
    judge = found("self", template)
    judge.bind(tiny.model(), tiny.tokenizer())  # both answers are its unknown token
    with pytest.raises(FeedbackError, match="no single tokens for the answers 1 and 2"):
        judge.compare(QUESTIONS)


def test_a_chat_template_is_used_where_there_is_one(template: str) -> None:
    tokenizer = asking_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}| {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}[end]"
        "{% if enable_thinking is not defined or enable_thinking %} w0{% endif %} {% endif %}"
    )
    model = asked_model()
    question = QUESTIONS[0]
    judge = found("self", template)
    judge.bind(model, tokenizer)
    prompt, first, second = texts(question)

    def says(first: str, second: str) -> float:
        text = "| " + TEMPLATE.format(prompt=prompt, first=first, second=second) + " [end]"
        with torch.no_grad():
            logits = model(torch.tensor([[WORDS.index(word) for word in text.split()]])).logits[0, -1]
        return float(torch.sigmoid(logits[WORDS.index("1")] - logits[WORDS.index("2")]))

    assert judge.compare([question]) == pytest.approx([(says(first, second) + 1 - says(second, first)) / 2], abs=1e-5)


def test_a_question_that_is_too_long_has_no_verdict(template: str) -> None:
    judge = found("self", template)
    judge.bind(asked_model(), asking_tokenizer())
    most = asked_model().config.max_position_embeddings
    long = Question(Group([1], source={"prompt": "w1 " * most}), *ANSWERS[0])
    alone = judge.compare(QUESTIONS[:1])
    assert judge.compare([long, QUESTIONS[0]]) == [None, pytest.approx(alone[0], abs=1e-6)]
    assert judge.tally.failed == {"too long for the judge": 1}


def save_classifier(folder: Path, reads: str | None, seed: int = 4) -> Path:
    tiny.classifier(seed).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    if reads is not None:
        (folder / "run.json").write_text(json.dumps({"algorithm": "any", "model": {"reads": reads}}))
    return folder


def scalar(ids: list[int], seed: int = 4) -> float:
    model = tiny.classifier(seed)
    with torch.no_grad():
        return float(model.score(model.model(torch.tensor([ids])).last_hidden_state)[0, -1, 0])


def ids_of(text: str) -> list[int]:
    return [tiny.WORDS.index(word) for word in text.split()]


def spaced(questions: list[Question]) -> list[Question]:
    """Questions known by their words alone, the prompt with the space that parts it from the completion."""
    prompts = [Group([1], source={"prompt": one.group.source["prompt"] + " "}) for one in questions]
    return [Question(prompt, one.first, one.second) for prompt, one in zip(prompts, questions, strict=True)]


def preference(question: Question) -> float:
    """sigmoid((f(x, y1, y2) - f(x, y2, y1)) / 2) of the model of seed 4, from words."""
    prompt, first, second = (ids_of(text) for text in texts(question))
    ab = scalar([*prompt, *first, tiny.EOS, *second, tiny.EOS])
    ba = scalar([*prompt, *second, tiny.EOS, *first, tiny.EOS])
    return 1 / (1 + math.exp(-(ab - ba) / 2))


def test_a_preference_model_with_tokens_of_its_own_reads_words(tmp_path: Path) -> None:
    judge = found(save_classifier(tmp_path / "pm", "preference"))
    judge.bind(None, asking_tokenizer())
    # Prompt and completion run together as they stand, and the judge has no row but the words.
    assert judge.compare(spaced(QUESTIONS)) == pytest.approx([preference(one) for one in QUESTIONS], abs=1e-5)


def test_a_preference_model_reads_both_in_either_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = found(save_classifier(tmp_path / "pm", "preference"))
    assert isinstance(judge.ask, PreferenceJudge)
    assert not judge.both_orders  # it is symmetric by itself
    expected = [preference(question) for question in QUESTIONS]
    spread = max(expected) - min(expected)
    assert spread > 0.05
    assert judge.compare(QUESTIONS) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(language_model, "ROWS", 3)
    turned = judge.compare([Question(one.group, one.second, one.first) for one in QUESTIONS])
    assert turned == pytest.approx([1 - p for p in expected], abs=1e-5)


def test_a_trained_preference_model_judges_as_its_own_loss_does(tmp_path: Path) -> None:
    method = tiny.algorithm("preference_model")
    judge = found(save_classifier(tmp_path / "pm", "preference"))
    groups = tiny.groups("pairs", 5)
    batch = Batch.of(method.collate(groups))
    model = tiny.classifier(4)
    model.config.pad_token_id = tiny.PAD
    with torch.no_grad():
        loss = method.loss(batch, score(model, batch, PLAIN), None)
    pairs = [(group, *(group.completions[index] for index in group.pairs[0])) for group in groups]
    assert judge.compare([Question(*one) for one in pairs]) == pytest.approx(loss.metrics["p_a"].tolist(), abs=1e-5)


@pytest.mark.parametrize("reads", ["reward", None])
def test_a_reward_model_compares_two_rewards(tmp_path: Path, reads: str | None) -> None:
    folder = save_classifier(tmp_path / "rm", reads)
    Zero.of([0.5]).save(folder)
    judge = found(folder)
    assert isinstance(judge.ask, RewardJudge)
    expected = []
    for question in QUESTIONS:
        prompt, *answers = texts(question)
        first, second = (scalar([*ids_of(f"{prompt} {answer}"), tiny.EOS]) for answer in answers)
        expected.append(1 / (1 + math.exp(second - first)))
    assert max(expected) - min(expected) > 0.05
    # Prompt and completion are put together as they stand.
    assert judge.compare(spaced(QUESTIONS)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("reads", ["preference", "reward"])
def test_an_adapter_may_be_a_judge_too(tmp_path: Path, reads: str) -> None:
    save_classifier(tmp_path / "base", None)
    adapted = get_peft_model(tiny.classifier(4), LoraConfig(task_type="SEQ_CLS", r=2))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    tiny.tokenizer().save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "run.json").write_text(json.dumps({"model": {"reads": reads}}))
    judge = found(tmp_path / "adapter")
    assert isinstance(judge.ask, PreferenceJudge if reads == "preference" else RewardJudge)
    if reads == "preference":  # a new adapter changes nothing
        assert judge.compare(QUESTIONS) == pytest.approx([preference(one) for one in QUESTIONS], abs=1e-5)


def test_a_checkpoint_of_a_preference_model_is_one_too(tmp_path: Path) -> None:
    save_classifier(tmp_path / "pm", "preference")
    checkpoint = save_classifier(tmp_path / "pm" / "checkpoint-10", None)
    assert isinstance(found(checkpoint).ask, PreferenceJudge)
    other = save_classifier(tmp_path / "pm" / "other", None)
    assert isinstance(found(other).ask, RewardJudge)


def test_models_that_are_not_asked_in_words_have_no_template(tmp_path: Path, template: str) -> None:
    with pytest.raises(SettingError, match="--judge_template is for language models"):
        found(save_classifier(tmp_path / "pm", "preference"), template)


def test_a_model_that_writes_nothing_reviews_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="writes no review; use --judge"):
        found(f"rubric:{save_classifier(tmp_path / 'rm', None)}")


def test_a_rubric_of_a_local_model_samples_its_scores(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rubric, "TOKENS", 12)
    path = tmp_path / "rubric.txt"
    path.write_text("{prompt} | {answer} Score:")
    judge = found(f"rubric:{asked}", str(path))
    assert isinstance(judge.ask, RubricJudge)
    replies: list[Any] = []
    write = judge.ask.writer.write

    def kept(*arguments: Any) -> Any:
        replies.append((arguments, write(*arguments)))
        return replies[-1][1]

    judge.ask.writer.write = kept  # type: ignore[method-assign]  # to listen in
    judge.compare(QUESTIONS)
    ((texts_asked, samples, _, temperature), some) = replies[0]
    assert len(texts_asked) == 8
    assert (samples, len(some)) == (3, 24)
    assert 0 < temperature <= 1
    assert len({reply.text for reply in some[:3]}) > 1  # judgements of one answer differ
    # What is said of a text does not depend on its neighbours, nor on when it is asked.
    judge.compare(QUESTIONS[1:2])
    assert [reply.text for reply in replies[1][1]] == [reply.text for reply in some[6:12]]
    assert judge.tally.written == sum(reply.written for reply in [*some, *replies[1][1]])
    assert judge.tally.failed == {"unparsable": 5}  # a random model scores nothing


def test_every_text_has_random_numbers_of_its_own() -> None:
    model = asked_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # whatever it reads, it says anything
    replies = LanguageModel(model, asking_tokenizer()).write(["w1", "w2", "w1"], 2, 8, 1.0)
    said = [reply.text for reply in replies if isinstance(reply, Reply)]
    assert len(set(said)) == 4
    assert said[:2] == said[4:]


def test_a_rubric_of_the_policy_reads_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that always says "Score: 1" but for one answer, of which it says "Score: 2"."""
    monkeypatch.setattr(rubric, "TOKENS", 12)
    words = [*tiny.WORDS, "Score:", "1", "2"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    model = asked_model(vocabulary=len(words)).train()
    path = tmp_path / "rubric.txt"
    path.write_text("{prompt} {answer}")
    judge = found("rubric:self", str(path))
    judge.bind(model, tokenizer)
    special = tiny.WORDS.index("w9")

    def forward(*_: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        nonlocal better
        if input_ids.shape[1] > 1:
            better = (input_ids == special).any(1)
            following = torch.full((len(input_ids),), words.index("Score:"))
        else:
            said = input_ids[:, -1]
            number = torch.where(better, words.index("2"), words.index("1"))
            following = torch.where(said == words.index("Score:"), number, tiny.EOS)
        output = original(input_ids=input_ids, **rest)
        output.logits = torch.full_like(output.logits, -1e4)
        output.logits[torch.arange(len(following)), -1, following] = 0.0
        return output

    better = torch.zeros(0)
    original = model.forward
    model.forward = forward
    # w9 is in the second answer of the first question and in none of the second.
    assert judge.compare(QUESTIONS[:2]) == [0.0, 0.5]
    assert model.training
    assert isinstance(judge.ask, RubricJudge)
    assert judge.ask.writer.model is model  # type: ignore[attr-defined]  # the policy is what writes


def test_a_judge_goes_where_the_policy_is(asked: Path, template: str) -> None:
    judge = found(asked, template)
    assert isinstance(judge.ask, LanguageModelJudge)
    model = judge.ask.model.model
    assert model is not None
    judge.bind(tiny.model().to("meta"), tiny.tokenizer())
    assert model.device.type == "meta"
