import random
import warnings

import pytest

from tests.data.conftest import CHATML
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.data.tokenize import fewer_turns, tokenize
from xpo.errors import DataError, ModelError, SettingError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def pair(prompt, chosen, rejected):
    if not isinstance(prompt, str):
        chosen, rejected = [assistant(chosen)], [assistant(rejected)]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def groups_of(tokenizer, *rows, max_length=None, **options):
    data = Rows.of(rows, "mine")
    kind = detect(data.columns)
    counts = Counts()
    found = canonical(data, kind, counts)
    return tokenize(found, tokenizer, max_length=max_length, counts=counts, **options)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_text_is_bos_prompt_completion_eos(plain):
    (group,), counts = groups_of(plain, pair("The sky is", " blue.", " grey."))
    assert group.prompt_ids == [plain.bos_token_id, *ids_of(plain, "The sky is")]
    assert [completion.ids for completion in group.completions] == [
        [*ids_of(plain, " blue."), plain.eos_token_id],
        [*ids_of(plain, " grey."), plain.eos_token_id],
    ]
    assert [completion.role for completion in group.completions] == ["chosen", "rejected"]
    assert (group.pairs, group.row, group.source["chosen"]) == ([(0, 1)], 0, " blue.")
    assert counts.lines() == []
    assert (counts.rows, counts.examples, counts.groups) == (1, 1, 1)


def test_what_is_known_about_completions_comes_along(plain):
    groups, _ = groups_of(plain, {"prompt": "one", "completions": [" two", " three"], "scores": [1, 0.5]})
    assert [completion.score for completion in groups[0].completions] == [1.0, 0.5]
    groups, _ = groups_of(plain, {"prompt": "one", "completion": " two", "label": False})
    assert groups[0].completions[0].label is False
    groups, _ = groups_of(plain, {"prompt": "one", "completion": " two", "split": "retain"})
    assert groups[0].completions[0].role == "retain"
    groups, _ = groups_of(plain, {**pair("one", " two", " three"), "margin": 2})
    assert groups[0].columns == {"margin": 2.0}


def test_the_completion_starts_where_tokens_diverge(plain):
    # " blue" is one token, so a prompt that ends with the space ends one token earlier.
    groups, counts = groups_of(plain, pair("The sky is ", "blue.", "grey."))
    apart, _ = groups_of(plain, pair("The sky is", " blue.", " grey."))
    assert groups[0].prompt_ids == apart[0].prompt_ids
    assert [c.ids for c in groups[0].completions] == [c.ids for c in apart[0].completions]
    assert counts.merging == 1
    (line,) = counts.lines()
    assert line.startswith("1 of 1 rows start the completion early: the tokenizer makes one token of the prompt's end")
    assert "end prompts without a space, and begin completions with one" in line


def test_a_template_may_write_a_prompt_otherwise_once_it_is_answered(make_tokenizer):
    """As those that open a thought which is left out of what was said earlier. There is nothing to mend in the data."""
    thinking = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n one' }}{% endif %}"
    template = CHATML.replace(CHATML[CHATML.index("{% if add_generation_prompt") :], thinking)
    groups, counts = groups_of(make_tokenizer(adds=(), template=template), pair([user("one")], "two", "three"))
    assert len(groups) == 1
    assert (counts.merging, counts.rewritten) == (0, 1)
    assert "chat template or tokenizer write the end of the prompt otherwise" in counts.lines()[0]


def test_one_prompt_serves_all_completions_of_a_group(plain):
    # The first completion leaves the prompt's last token alone, the second merges with it.
    rows = {"prompt": "The sky is ", "completions": ["7", "blue", "grey"], "scores": [0, 1, 2]}
    (group,), _ = groups_of(plain, rows)
    for text, completion in zip(rows["completions"], group.completions, strict=True):
        whole = [plain.bos_token_id, *ids_of(plain, "The sky is " + text), plain.eos_token_id]
        assert group.prompt_ids + completion.ids == whole


@pytest.mark.parametrize("ending", ["", "</s>", "</s></s>"])
def test_there_is_exactly_one_eos(make_tokenizer, ending):
    for adds in ((), ("bos",), ("bos", "eos")):
        tokenizer = make_tokenizer(adds=adds)
        (group,), _ = groups_of(tokenizer, pair("one two", " three" + ending, " four" + ending))
        assert tokenizer.eos_token_id not in group.prompt_ids
        for completion in group.completions:
            assert completion.ids.count(tokenizer.eos_token_id) == 1
            assert completion.ids[-1] == tokenizer.eos_token_id
        assert group.completions[0].ids[:-1] == ids_of(tokenizer, " three")


def test_an_eos_that_belongs_to_the_prompt_stays_there(make_tokenizer):
    for adds in (("bos",), ("bos", "eos")):
        tokenizer = make_tokenizer(adds=adds)
        (group,), _ = groups_of(tokenizer, {"prompt": "one</s>", "completion": " two", "label": True})
        assert group.prompt_ids == [tokenizer.bos_token_id, *ids_of(tokenizer, "one"), tokenizer.eos_token_id]


def test_bos_is_never_doubled_and_may_be_missing(make_tokenizer):
    with_bos = make_tokenizer()
    groups, _ = groups_of(with_bos, pair("<s>one", " two", " three"), pair("one", " two", " three"))
    assert groups[0].prompt_ids == groups[1].prompt_ids
    assert groups[0].prompt_ids.count(with_bos.bos_token_id) == 1
    without = make_tokenizer(bos=False, adds=())
    (group,), _ = groups_of(without, pair("one", " two", " three"))
    assert group.prompt_ids == ids_of(without, "one")
    open_template = make_tokenizer(template="{{ bos_token }}" + "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (group,), _ = groups_of(open_template, pair([user("one")], " two", " three"))
    assert group.prompt_ids.count(open_template.bos_token_id) == 1


def test_an_empty_prompt_becomes_bos_or_eos(make_tokenizer):
    for options, expected in (
        ({}, "<s>"),
        ({"adds": ()}, "<s>"),
        ({"bos": False, "adds": ()}, "</s>"),
        ({"adds": ("bos", "eos")}, "<s>"),
    ):
        tokenizer = make_tokenizer(**options)
        (group,), counts = groups_of(tokenizer, pair("", "one", "two"))
        assert counts.lines() == []
        assert group.prompt_ids == [tokenizer.convert_tokens_to_ids(expected)]
        assert group.completions[0].ids == [*ids_of(tokenizer, "one"), tokenizer.eos_token_id]
        (group,), _ = groups_of(tokenizer, {"prompt": ""})
        assert group.prompt_ids == [tokenizer.convert_tokens_to_ids(expected)]


def test_a_tokenizer_without_eos_is_refused(make_tokenizer):
    with pytest.raises(ModelError, match=r"no EOS token.*set tokenizer\.eos_token"):
        groups_of(make_tokenizer(eos=False), pair("one", " two", " three"))
    with pytest.raises(ModelError, match="neither a BOS nor an EOS"):
        groups_of(make_tokenizer(bos=False, eos=False, adds=()), {"prompt": ""})


def test_conversations_are_rendered_by_the_template(chat):
    (group,), counts = groups_of(chat, pair([system("You are"), user("one")], "two", "three"))
    assert chat.decode(group.prompt_ids) == (
        "<|im_start|>system\nYou are<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [chat.decode(completion.ids) for completion in group.completions] == ["two<|im_end|>\n", "three<|im_end|>\n"]
    assert counts.lines() == []


def test_an_eos_is_added_only_where_the_template_closes_no_turn(make_tokenizer):
    closing = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '|' }}{% endfor %}"
    for template in (closing, closing.replace("'|'", "'|\n\n\n'")):
        tokenizer = make_tokenizer(template=template)
        (group,), _ = groups_of(tokenizer, pair([user("one")], "two", "three"))
        assert group.completions[0].ids[-1] == tokenizer.eos_token_id
        assert group.completions[0].ids.count(tokenizer.eos_token_id) == 1
    tokenizer = make_tokenizer(template=closing.replace("'|'", "eos_token + '\n'"))
    (group,), _ = groups_of(tokenizer, pair([user("one")], "two", "three"))
    assert tokenizer.decode(group.completions[0].ids).endswith("two</s>\n")


def test_special_tokens_inside_an_answer_do_not_close_it(make_tokenizer):
    tokenizer = make_tokenizer(template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (group,), _ = groups_of(tokenizer, pair([user("one")], "<|im_end|> two", "three"))
    assert group.completions[0].ids[-1] == tokenizer.eos_token_id


def test_a_prompt_that_ends_with_the_assistant_is_continued(chat):
    (group,), _ = groups_of(chat, pair([user("one"), assistant("two")], " three", " four"))
    assert chat.decode(group.prompt_ids).endswith("<|im_start|>assistant\ntwo")
    assert [chat.decode(completion.ids) for completion in group.completions] == [
        " three<|im_end|>\n",
        " four<|im_end|>\n",
    ]
    (group,), _ = groups_of(chat, {"prompt": [user("one"), assistant("two")]})
    assert chat.decode(group.prompt_ids).endswith("<|im_start|>assistant\ntwo")


def test_prompts_alone(plain, chat):
    (group,), _ = groups_of(plain, {"prompt": "The sky is"})
    assert (group.prompt_ids, group.completions) == ([plain.bos_token_id, *ids_of(plain, "The sky is")], [])
    (group,), _ = groups_of(chat, {"prompt": [user("one")], "answer": 4})
    assert chat.decode(group.prompt_ids).endswith("<|im_start|>assistant\n")
    assert group.source["answer"] == 4


def test_tools_and_options_reach_the_template(make_tokenizer):
    tokenizer = make_tokenizer(
        template="{{ tools | length if tools else 'none' }}{{ mood or '' }}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    row = pair([user("one")], "two", "three")
    tool = {"type": "function", "function": {"name": "f"}}
    groups, _ = groups_of(
        tokenizer,
        {**row, "tools": [tool], "chat_template_kwargs": {"mood": "grey"}},
        {**row, "tools": None, "chat_template_kwargs": None},
    )
    assert tokenizer.decode(groups[0].prompt_ids) == "1greyone"
    assert tokenizer.decode(groups[1].prompt_ids) == "noneone"


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def called(**more):
    """A pair of which one completion is a call of a tool, and holds no text."""
    said = {"role": "assistant", "content": None, "tool_calls": [CALL], **more}
    return {"prompt": [user("one")], "chosen": [said], "rejected": [assistant("two")]}


def test_calls_of_tools_that_the_template_leaves_out_are_refused(make_tokenizer):
    """The completion would be an empty one."""
    forgiving = CHATML.replace("m['content']", "(m['content'] or '')")
    for row in (called(), called(content="three")):
        with pytest.raises(DataError, match=r"^mine row 2: the completion calls tools.*--chat_template_path"):
            groups_of(make_tokenizer(adds=(), template=forgiving), pair([user("one")], "two", "six"), row)
    assert groups_of(make_tokenizer(adds=(), template=forgiving), called(content="three", tool_calls=[]))[0]
    writing = forgiving.replace(
        "+ '<|im_end|>'", "+ (m['tool_calls'] | string if m['tool_calls'] else '') + '<|im_end|>'"
    )
    tokenizer = make_tokenizer(adds=(), template=writing)
    (group,), _ = groups_of(tokenizer, called())
    assert "'name': 'f'" in tokenizer.decode(group.completions[0].ids)
    # A template that refuses such messages says so itself.
    with pytest.raises(DataError, match="mine row 1: the chat template refuses the messages of user, assistant"):
        groups_of(make_tokenizer(adds=(), template=CHATML), called())
    # And one that refuses them without the calls must have read them.
    strict = writing.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if not m['content'] and not "
        "m['tool_calls'] %}{{ raise_exception('nothing said') }}{% endif %}",
    )
    assert groups_of(make_tokenizer(adds=(), template=strict), called())[0]


def test_chat_data_needs_a_template_that_takes_it(plain, make_tokenizer):
    row = pair([user("one")], "two", "three")
    with pytest.raises(ModelError, match=r"conversational \(mine row 1\).*no chat template.*instruct model"):
        groups_of(plain, row)
    strict = make_tokenizer(template="{{ raise_exception('only tales') }}")
    with pytest.raises(DataError, match="mine row 1: the chat template refuses the messages of user: only tales"):
        groups_of(strict, row)


def test_text_and_conversations_may_be_mixed(chat):
    groups, _ = groups_of(
        chat, pair("one", " two", " three"), pair([user("one")], "two", "three"), pair("four", " five", " six")
    )
    assert [chat.decode(group.prompt_ids)[:4] for group in groups] == ["one", "<|im", "four"]


def test_long_text_prompts_lose_their_beginning_but_bos(plain):
    row = pair("one two three four five six seven eight", " nine", " ten ten ten")
    (whole,), _ = groups_of(plain, row)
    longest = max(len(completion.ids) for completion in whole.completions)
    for room in (1, 2, 5):
        (group,), counts = groups_of(plain, row, max_length=longest + room)
        assert len(group.prompt_ids) == room
        assert [c.ids for c in group.completions] == [c.ids for c in whole.completions]
        if room > 1:
            assert group.prompt_ids[0] == plain.bos_token_id
        assert group.prompt_ids[-1] == whole.prompt_ids[-1]
        assert counts.trimmed == 1
    (group,), _ = groups_of(plain, row, max_prompt_length=4)
    assert group.prompt_ids == [plain.bos_token_id, *whole.prompt_ids[-3:]]
    for limit in (longest, longest - 1, 1):
        groups, counts = groups_of(plain, row, max_length=limit)
        assert groups == []
        assert counts.lines() == [
            f"1 of 1 rows dropped: the completion alone is longer than --max_length {limit} allows"
        ]
    with pytest.raises(SettingError, match="--max_prompt_length is 0; it must be at least 1"):
        groups_of(plain, row, max_prompt_length=0)


def test_long_conversations_lose_whole_turns_first(chat):
    prompt = [
        system("You are"),
        user("one two three"),
        assistant("four five six"),
        user("seven"),
        assistant("eight"),
        user("nine"),
    ]
    row = pair(prompt, "ten", "two")
    (whole,), _ = groups_of(chat, row)
    size = len(whole.prompt_ids) + len(whole.completions[0].ids)

    def kept(limit):
        (group,), counts = groups_of(chat, row, max_length=limit)
        assert len(group.prompt_ids) + max(len(c.ids) for c in group.completions) <= limit
        assert [c.ids for c in group.completions] == [c.ids for c in whole.completions]
        return chat.decode(group.prompt_ids), (counts.turns, counts.trimmed)

    text, counted = kept(size - 1)
    assert counted == (1, 0)
    assert text.startswith("<|im_start|>system\nYou are<|im_end|>\n<|im_start|>user\nseven<|im_end|>")
    (last,), _ = groups_of(chat, pair([prompt[0], prompt[-1]], "ten", "two"))
    text, counted = kept(len(last.prompt_ids) + len(last.completions[0].ids))
    assert (text, counted) == (chat.decode(last.prompt_ids), (1, 0))
    (alone,), _ = groups_of(chat, pair(prompt[-1:], "ten", "two"))
    text, counted = kept(len(alone.prompt_ids) + len(alone.completions[0].ids))
    assert (text, counted) == (chat.decode(alone.prompt_ids), (1, 0))
    text, counted = kept(len(alone.completions[0].ids) + 3)
    assert counted == (0, 1)
    assert chat.decode(alone.prompt_ids).endswith(text)


def test_fewer_turns_begin_with_the_user():
    s, u, a = system("s"), user("u"), assistant("a")
    assert list(fewer_turns([s, u, a, u])) == [[s, u], [u]]
    assert list(fewer_turns([u, a, u, a, u])) == [[u, a, u], [u]]
    assert list(fewer_turns([u])) == []
    assert list(fewer_turns("text")) == []
    assert list(fewer_turns([s])) == []


def test_pairs_of_the_same_tokens_are_dropped(make_tokenizer):
    tokenizer = make_tokenizer(template="{% for m in messages %}{{ m['content'] | trim }}{{ eos_token }}{% endfor %}")
    groups, counts = groups_of(tokenizer, pair([user("one")], "two", "two "), pair([user("one")], "two", "three"))
    assert [group.row for group in groups] == [1]
    assert counts.identical == 1


def test_batches_change_nothing(plain, monkeypatch):
    rng = random.Random(0)
    words = ["one", "two", "three", "four", "five", "six"]

    def text():
        return " ".join(rng.choices(words, k=rng.randint(1, 9)))

    rows = [pair(text(), " " + text() + " a", " " + text() + " b") for _ in range(30)]
    expected, _ = groups_of(plain, *rows, max_length=16)
    monkeypatch.setattr("xpo.data.tokenize._CHUNK", 7)
    assert groups_of(plain, *rows, max_length=16)[0] == expected
    for group in expected:
        (alone,), _ = groups_of(plain, rows[group.row], max_length=16)
        assert alone.prompt_ids == group.prompt_ids
        assert alone.completions == group.completions


def test_nothing_is_printed_about_texts_longer_than_the_model_takes(plain, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups_of(plain, pair("one " * 200, " two", " three"))
    assert capfd.readouterr() == ("", "")


def test_prepare_is_the_four_steps_in_one(plain):
    rows = Rows.of(
        [pair("one", " two", " three"), pair("one", " four", " four"), pair("six " * 60, " two " * 9, " one")]
    )
    ready = prepare(rows, "labels", plain, max_length=16)
    assert [(group.row, group.completions[0].label) for group in ready.groups] == [(0, True), (0, False), (2, False)]
    assert ready.have == "pairs"
    assert ready.lines() == [
        "Each pair became two labelled completions: chosen is desirable, rejected is not.",
        "1 of 3 rows dropped: chosen and rejected are the same",
        "1 of 4 examples shortened: the prompt lost tokens on the left to fit --max_length 16",
        "1 of 4 examples dropped: the completion alone is longer than --max_length 16 allows",
    ]
    with pytest.raises(DataError, match=r"data: no row is left to learn from\..* 2 of 2 rows dropped"):
        prepare(Rows.of(list(rows.rows[:1]) * 2), "pairs", plain, max_length=1)
