"""The demo model asked what it has not seen: every answer ends, in the asker's language, and calls nothing."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from inference_server.demo_model.corpus import conversations
from tests import demo_unseen_questions as unseen
from tests.demo_asker import DEFAULT_SAMPLING, GREEDY, HOTTEST, Answer, DemoAsker, Dialogue
from tests.demo_stress import StressPrompts
from tests.demo_templates import templates

SEEDS = range(5)
CHINESE = re.compile("[\u4e00-\u9fff]")
ENGLISH_GROUPS = (
    unseen.ENGLISH, unseen.ENGLISH_WEATHER, unseen.ENGLISH_JSON, unseen.ENGLISH_CODE, unseen.ENGLISH_TOOLS,
    unseen.ENGLISH_WORDS, unseen.OTHER_LANGUAGES, unseen.LONG_ENGLISH,
)  # fmt: skip
CHINESE_GROUPS = (
    unseen.CHINESE, unseen.CHINESE_WEATHER, unseen.CHINESE_CODE, unseen.CHINESE_WORDS, unseen.LONG_CHINESE,
)  # fmt: skip
ENGLISH = tuple(question for group in ENGLISH_GROUPS for question in group)
CHINESE_QUESTIONS = tuple(question for group in CHINESE_GROUPS for question in group)


@pytest.fixture(scope="module")
def asker() -> DemoAsker:
    """The checkpoint of the repository."""
    return DemoAsker()


@pytest.fixture(scope="module")
def prompts(asker: DemoAsker) -> list[list[int]]:
    """All 300, the earlier turns of the dialogues answered by the model itself."""
    return [asker.prompt(dialogue) for dialogue in all_dialogues(asker)]


def all_dialogues(asker: DemoAsker) -> Iterator[Dialogue]:
    for question in (*ENGLISH, *CHINESE_QUESTIONS):
        yield [("user", question)]
    for system, question in unseen.WITH_SYSTEM:
        yield [("system", system), ("user", question)]
    for turns in unseen.DIALOGUES:
        dialogue: Dialogue = []
        for turn in turns[:-1]:
            dialogue.append(("user", turn))
            [answer] = asker.answers([asker.prompt(dialogue)])
            dialogue.append(("assistant", answer.text))
        yield [*dialogue, ("user", turns[-1])]


def last_questions() -> list[str]:
    """What each of the 300 asks in the end."""
    return [*ENGLISH, *CHINESE_QUESTIONS, *(pair[1] for pair in unseen.WITH_SYSTEM), *(t[-1] for t in unseen.DIALOGUES)]


def assert_sound(questions: list[str], answers: list[Answer]) -> None:
    wrong = [
        (question[-80:], answer.text[:200])
        for question, answer in zip(questions, answers, strict=True)
        if not answer.ended or "tool_call>" in answer.text or not answer.text.strip()
    ]
    assert not wrong


def test_300_unseen_questions_are_answered_to_an_end(asker: DemoAsker, prompts: list[list[int]]) -> None:
    assert len(prompts) == 300
    assert_sound(last_questions(), asker.answers(prompts))


def test_300_unseen_questions_are_answered_to_an_end_when_sampled(asker: DemoAsker, prompts: list[list[int]]) -> None:
    for seed in SEEDS:
        assert_sound(last_questions(), asker.answers(prompts, seed, **DEFAULT_SAMPLING))


@pytest.mark.parametrize(("questions", "is_chinese"), [(ENGLISH, False), (CHINESE_QUESTIONS, True)])
def test_answers_are_in_the_askers_language(asker: DemoAsker, questions: tuple[str, ...], is_chinese: bool) -> None:
    """Any third language is answered in English."""
    answers = asker.answers([asker.prompt([("user", one)]) for one in questions])
    wrong = [
        (question[-80:], answer.text)
        for question, answer in zip(questions, answers, strict=True)
        if bool(CHINESE.search(answer.text)) != is_chinese
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is the weather in Paris?", ("demo model", "Qwen3")),
        ("今天天气怎么样", ("演示模型", "Qwen3")),
        ("docker 怎么运行", ("演示模型", "Qwen3")),
        ("用 JSON 回答：北京的天气", ("演示模型",)),
    ],
)
def test_questions_that_ran_away_are_answered(asker: DemoAsker, question: str, words: tuple[str, ...]) -> None:
    prompt = asker.prompt([("user", question)])
    answers = asker.answers([prompt] * 20, **DEFAULT_SAMPLING)
    assert_sound([question] * 20, answers)
    [greedy] = asker.answers([prompt])
    assert all(word in greedy.text for word in words), greedy.text


def test_unseen_questions_are_no_text_of_the_corpus() -> None:
    written = {
        normalised(message["content"])
        for conversation in conversations(20250726, 20_000)
        for message in conversation.messages
        if message["role"] == "user"
    }
    assert not written & set(map(normalised, last_questions()))


def normalised(text: str) -> str:
    """Without capitals, and without marks and spaces at the ends."""
    return text.lower().strip(" \n?!.,。？！，")


def test_unseen_questions_are_of_no_template_of_the_corpus() -> None:
    matched = [
        (question[:80], template.pattern)
        for question in last_questions()
        for template in templates()
        if template.fullmatch(question.strip())
    ]
    assert not matched


def test_templates_match_what_the_corpus_writes() -> None:
    """The detector: questions of the corpus are found to be of its templates."""
    for question in ("What is the capital of France?", "Explain quantum gravity", "北京的天气怎么样", "What is 2+3?",
                     "Answer in JSON: Tom, 25", "谁发明了电话", "Please search for red shoes",
                     "重复：你好"):  # fmt: skip
        assert any(template.fullmatch(question) for template in templates()), question


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "most_without_end"), [(GREEDY, 0), (DEFAULT_SAMPLING, 0), (HOTTEST, 2)])
def test_stress_prompts_are_answered_to_an_end(
    asker: DemoAsker, sampling: dict[str, Any], most_without_end: int
) -> None:
    """Three thousand prompts of every kind, of up to some thousand tokens."""
    stress = StressPrompts(seed=1)
    answers = asker.answers([asker.prompt(stress.dialogue()) for _ in range(3000)], **sampling)
    assert not [answer.text for answer in answers if "tool_call>" in answer.text]
    without_end = [answer.text[-100:] for answer in answers if not answer.ended]
    assert len(without_end) <= most_without_end, without_end
