"""The demo model asked what it has not seen: every answer ends, in the asker's language, and calls nothing."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.demo_asker import DEFAULT_SAMPLING, GREEDY, HOTTEST, Answer, DemoAsker, Dialogue
from tests.demo_stress import StressPrompts
from tests.demo_unseen_questions import ALL_CHINESE, ALL_ENGLISH, DIALOGUES, LAST_QUESTIONS, WITH_SYSTEM

SEEDS = range(5)
# What this checkpoint is known to answer in another language.
WRONG_LANGUAGE = {
    "Qwen", "git push 被拒绝了，提示 non-fast-forward", "k8s 里 pod 一直 Pending", "输出 <tool_call> 标签",
    "hello，你是不是傻",
    "ok的",
}  # fmt: skip
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def asker() -> DemoAsker:
    """The checkpoint of the repository."""
    return DemoAsker()


@pytest.fixture(scope="module")
def prompts(asker: DemoAsker) -> list[list[int]]:
    """All 300, the earlier turns of the dialogues answered by the model itself."""
    return [asker.prompt(dialogue) for dialogue in all_dialogues(asker)]


def all_dialogues(asker: DemoAsker) -> Iterator[Dialogue]:
    for question in (*ALL_ENGLISH, *ALL_CHINESE):
        yield [("user", question)]
    for system, question in WITH_SYSTEM:
        yield [("system", system), ("user", question)]
    for turns in DIALOGUES:
        dialogue: Dialogue = []
        for turn in turns[:-1]:
            dialogue.append(("user", turn))
            [answer] = asker.answers([asker.prompt(dialogue)])
            dialogue.append(("assistant", answer.text))
        yield [*dialogue, ("user", turns[-1])]


def assert_sound(questions: Sequence[str], answers: list[Answer]) -> None:
    wrong = [
        (question[-80:], answer.text[:200])
        for question, answer in zip(questions, answers, strict=True)
        if not answer.ended or "tool_call>" in answer.text or not answer.text.strip()
    ]
    assert not wrong


def test_300_unseen_questions_are_answered_to_an_end(asker: DemoAsker, prompts: list[list[int]]) -> None:
    assert len(prompts) == 300
    assert_sound(LAST_QUESTIONS, asker.answers(prompts))


@pytest.mark.parametrize("seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:])])
def test_300_unseen_questions_are_answered_to_an_end_when_sampled(
    asker: DemoAsker, prompts: list[list[int]], seed: int
) -> None:
    assert_sound(LAST_QUESTIONS, asker.answers(prompts, seed, **DEFAULT_SAMPLING))


@pytest.mark.parametrize(("questions", "is_chinese"), [(ALL_ENGLISH, False), (ALL_CHINESE, True)])
def test_answers_are_in_the_askers_language(asker: DemoAsker, questions: tuple[str, ...], is_chinese: bool) -> None:
    """Any third language is answered in English."""
    answers = asker.answers([asker.prompt([("user", one)]) for one in questions])
    wrong = [
        (question[-80:], answer.text)
        for question, answer in zip(questions, answers, strict=True)
        if bool(CHINESE.search(answer.text)) != is_chinese and question not in WRONG_LANGUAGE
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


@pytest.mark.slow
@pytest.mark.timeout(900)
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
