"""What the templates of the demo model's corpus can write, as patterns: wider than what they do write."""

import re
from functools import cache

from inference_server.demo_model.corpus_chinese import CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_TOPICS
from inference_server.demo_model.corpus_prose import CHINESE_FORMS_OF_PROSE, ENGLISH_FORMS_OF_PROSE
from inference_server.demo_model.corpus_tool_families import FAMILIES
from inference_server.demo_model.corpus_tools import WEATHER_WITHOUT_CITY
from inference_server.demo_model.corpus_unseen_forms import CHINESE_FORMS, ENGLISH_FORMS

# A placeholder stands for any one or two words, whatever the corpus puts there.
_ENGLISH_FILLING, _CHINESE_FILLING = r"\S+(?: \S+)?", r"[^，。？！]{1,6}"
_PLACEHOLDER = re.compile(r"(?<![A-Za-z+])[A-Z](?![A-Za-z+'])")
_LEAST_LETTERS, _LEAST_CHARACTERS = 4, 2
_ENGLISH_OPENING = r"(?:(?:please|hello|hi|hey|ok|so|and|excuse me|could you please|could you tell me)[,:]? )?"
_CHINESE_OPENING = "(?:请问|你好，|您好，|嗨，|那|好的，|我想问一下，|请|我想知道)?"
_ENDING = r"(?:,? please)?[?!.。？！ ]*"
# Those that the corpus puts together in code: sums, names, texts to repeat, JSON.
_IN_CODE = (
    r"(?:what is|what's|how much is|calculate|compute)? ?\d ?(?:[+-]|plus|minus) ?\d ?=? ?\??",
    r"(?:请问)?(?:计算)?\d ?[+加减-] ?\d.{0,5}",
    r"(?:hello, |hi, |hi! |hello! )?(?:my name is|my name's|i am|i'm|call me|you can call me) \S+(?:\.|!|, .*)?",
    r"(?:你好，|你好！|嗨，)?(?:我叫|我的名字是|我的名字叫|我是|叫我|大家叫我).{1,4}(?:，.*)?",
    r"(?:你还记得|你知道|你记得|还记得|请问)?我(?:叫|的名字|是谁).*",
    r".*\bmy name\??|who am i\??|.*who i am\??", r"(?s)(?:please )?(?:repeat|say|echo)(?: after me)?: .*",
    r"(?s)(?:请)?(?:重复|跟我说|跟我念|说)(?:一遍)?：.*",
    r"(?s)(?:answer|reply|respond|give me|return|write|use|output)(?: in| with| as)? (?:json|a json object|valid json"
    r")(?::| with| -)? .*",
    r"(?s).*(?:answer|reply|respond|output) (?:in|as|with) json\.?",
    r"(?s)(?:用|请用|请以|以|用一个) ?json ?(?:回答|格式回答|输出|格式输出|表示|返回).*",
    r"(?s).*(?:用|请用|以) json (?:回答|返回|输出)。?",
    r"(?s).*\b(?:fits this schema|with this schema|matching the schema|with the keys|of this form).*",
)  # fmt: skip


@cache
def templates() -> tuple[re.Pattern[str], ...]:
    """One pattern for every form of a question that fixes at least a word of its own."""
    english = [form for topic in ENGLISH_TOPICS for form in topic.questions]
    chinese = [form for topic in CHINESE_TOPICS for form in topic.questions]
    english += [*ENGLISH_FORMS, *ENGLISH_FORMS_OF_PROSE, *WEATHER_WITHOUT_CITY[0]]
    chinese += [*CHINESE_FORMS, *CHINESE_FORMS_OF_PROSE, *WEATHER_WITHOUT_CITY[1]]
    english += [form for family in FAMILIES for form in family.english]
    chinese += [form for family in FAMILIES for form in family.chinese]
    written = [_pattern(form, _ENGLISH_OPENING, _ENGLISH_FILLING) for form in english if _says_something(form)]
    written += [_pattern(form, _CHINESE_OPENING, _CHINESE_FILLING) for form in chinese if _says_something(form)]
    return (*written, *(re.compile(pattern, re.IGNORECASE) for pattern in _IN_CODE))


def _says_something(form: str) -> bool:
    fixed = _PLACEHOLDER.sub("", re.sub(r"\[[^\[\]]*\|\]", "", form))
    characters = len(re.findall("[\u4e00-\u9fff]", fixed))
    return characters >= _LEAST_CHARACTERS or len(re.findall("[A-Za-z]", fixed)) >= _LEAST_LETTERS


def _pattern(form: str, opening: str, filling: str) -> re.Pattern[str]:
    pieces = []
    for piece in re.split(r"([\[\]|])", form):
        pieces.append({"[": "(?:", "]": ")", "|": "|"}.get(piece) or _PLACEHOLDER.sub("\0", piece))
    text = "".join(piece if piece in ("(?:", ")", "|") else re.escape(piece) for piece in pieces)
    return re.compile(opening + text.replace(re.escape("\0"), filling) + _ENDING, re.IGNORECASE)
