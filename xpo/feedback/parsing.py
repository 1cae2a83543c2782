"""What a language model is asked as a judge, and what counts as an answer. What is unclear is no answer."""

from __future__ import annotations

import re
from pathlib import Path

from xpo.errors import SettingError

#: The question about two answers.
PAIR = """\
Two answers to the same request are shown. Decide which one a careful person would prefer: the one that is more \
helpful, more correct and more to the point. Neither its length nor its place says that an answer is better.

[Request]
{prompt}

[Answer 1]
{first}

[Answer 2]
{second}

[Verdict]
Say which answer is better, 1 or 2, and nothing else. The better answer is number"""

#: The question about one answer: an additive rubric of five points (Yuan et al. 2024, arXiv 2401.10020).
RUBRIC = """\
Review an answer to a request. It collects points, each on top of those before:
- 1 point if the answer is relevant and tells something about what was asked, even if it is incomplete.
- 1 more if it covers a substantial part of the request.
- 1 more if it answers the basic elements of the request in a useful way.
- 1 more if it is clearly written from an assistant's view, complete, well organised and helpful.
- 1 more if it is faultless: fitted to the request, without anything that does not belong there, and insightful.

[Request]
{prompt}

[Answer]
{answer}

[Review]
Give your reasons in at most 100 words. Then end with one line of the form "Score: N", where N is the total of points, \
from 0 to 5."""

_NAMES = re.compile(r"\{(prompt|first|second|answer)\}")
_SCORE = re.compile(r"\bscore\b\W*?:\W*?(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?(?![\d.]*\d)", re.IGNORECASE)
#: Points of the rubric.
MOST = 5.0


def read_template(path: str | None, default: str) -> str:
    """The template in a file, or the default one where there is no file.

    Raises:
        SettingError: the file cannot be read or does not name what the default one names.
    """
    if path is None:
        return default
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--judge_template {path} cannot be read: {error}") from error
    wanted, found = (set(_NAMES.findall(template)) for template in (default, text))
    if missing := sorted(wanted - found):
        names = " and ".join(f"{{{name}}}" for name in missing)
        raise SettingError(
            f"--judge_template {path} lacks {names}; a question names "
            + ", ".join(f"{{{name}}}" for name in _NAMES.findall(default))
        )
    return text


def fill(template: str, **texts: str) -> str:
    """The template with its names replaced, once: braces in the texts are only text."""
    return _NAMES.sub(lambda name: texts.get(name[1], name[0]), template)


def choice(text: str) -> float | None:
    """1 for the answer "1", 0 for "2"; None for anything else."""
    return {"1": 1.0, "2": 0.0}.get(text.strip())


def points(text: str) -> float | None:
    """The N of "Score: N", from 0 to 5; None where there is none, or another scale, or several that differ."""
    found = set()
    for number, scale in _SCORE.findall(text):
        found.add(float(number) if scale in ("", "5") else float("nan"))
    value = found.pop() if len(found) == 1 else None
    return value if value is not None and 0.0 <= value <= MOST else None
