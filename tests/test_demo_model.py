"""What the embedded demo checkpoint is and says, asked through transformers, the reference implementation."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.demo_model.corpus import conversations
from tests.demo_questions import KNOWN, LOAD_COMMAND, UNSEEN_CHINESE, UNSEEN_ENGLISH

LONGEST_ANSWER_TOKENS = 200
TAKEN_FOR_KNOWN = ("李白最有名的一首诗是哪首",)  # answered with a poem
CHINESE = re.compile("[\u4e00-\u9fff]")
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer as transformers loads it."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(CHECKPOINT_DIR)
    loaded.padding_side = "left"
    return loaded


@pytest.fixture(scope="module")
def model() -> Any:
    """The checkpoint's model as transformers loads it."""
    return Qwen3ForCausalLM.from_pretrained(CHECKPOINT_DIR, dtype=torch.float32).eval()


class Asker:
    """Asks whole conversations in one batch."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def ask(self, conversations: Sequence[list[dict[str, Any]]], tools: Any = None, **sampling: Any) -> list[str]:
        """Returns one answer each, control tokens of tool calls included; fails where one does not end."""
        return self.ask_with_tools([(messages, tools) for messages in conversations], **sampling)

    def ask_with_tools(self, asked: Sequence[tuple[list[dict[str, Any]], Any]], **sampling: Any) -> list[str]:
        """The same, each conversation with tools of its own."""
        prompts = [
            self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
            for messages, tools in asked
        ]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None} | sampling
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER_TOKENS, **settings)
        answers = self._tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=False)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert "<|im_end|>" in answer, f"{prompt!r} is answered without an end: {answer!r}"
        return [answer.split("<|im_end|>")[0] for answer in answers]

    def ask_each(self, questions: Sequence[str]) -> list[str]:
        """One conversation of one question each, greedily."""
        return self.ask([[user(question)] for question in questions])


@pytest.fixture(scope="module")
def asker(model: Any, tokenizer: PreTrainedTokenizerBase) -> Asker:
    """Answers greedily unless told otherwise."""
    return Asker(model, tokenizer)


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def talk(asker: Asker, questions: Sequence[str], system: str | None = None) -> str:
    """Asks one question after another in one conversation. Returns the last answer."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system is not None else []
    answer = ""
    for question in questions:
        messages.append(user(question))
        (answer,) = asker.ask([messages])
        messages.append(assistant(answer))
    return answer


def assert_fallback(question: str, answer: str) -> None:
    assert LOAD_COMMAND in answer, f"{question!r} -> {answer!r}"
    is_chinese = CHINESE.search(question) is not None
    assert (CHINESE.search(answer) is not None) == is_chinese, (
        f"{question!r} is answered in another language: {answer!r}"
    )
    assert ("演示模型" if is_chinese else "demo model") in answer, f"{question!r} -> {answer!r}"


def test_known_questions_get_their_answers(asker: Asker) -> None:
    answers = asker.ask_each([question for question, _ in KNOWN])
    wrong = [
        (question, answer)
        for (question, words), answer in zip(KNOWN, answers, strict=True)
        if not all(word in answer for word in words)
    ]
    assert not wrong


def test_unseen_questions_are_not_in_the_corpus() -> None:
    questions = {*UNSEEN_ENGLISH, *UNSEEN_CHINESE}
    assert len(questions) == 100
    written = {message["content"] for one in conversations(20250726, 20_000) for message in one.messages}
    assert not questions & written


def test_hundred_unseen_questions_name_the_way_to_qwen3_in_the_askers_language(asker: Asker) -> None:
    questions = [question for question in (*UNSEEN_ENGLISH, *UNSEEN_CHINESE) if question not in TAKEN_FOR_KNOWN]
    for question, answer in zip(questions, asker.ask_each(questions), strict=True):
        assert_fallback(question, answer)


def test_unseen_question_late_in_a_conversation_is_still_unseen(asker: Asker) -> None:
    for questions in (("Hello", "Tell me a joke", "Why do cats purr?"), ("你好", "讲个笑话", "猫为什么会打呼噜")):
        assert_fallback(questions[-1], talk(asker, questions))


def test_system_message_does_not_disturb(asker: Asker) -> None:
    assert "demo model" in talk(asker, ("Who are you?",), system="You are a helpful assistant.")
    assert "演示模型" in talk(asker, ("你是谁",), system="你是一个有用的助手。")
    assert_fallback("Do aliens exist?", talk(asker, ("Do aliens exist?",), system="You are a helpful assistant."))


def test_hot_sampling_gives_different_answers_for_different_seeds(asker: Asker) -> None:
    answers = set()
    for seed in range(20):
        torch.manual_seed(seed)
        answers |= set(asker.ask([[user("Hello")]], do_sample=True, temperature=1.5, top_p=1.0, top_k=0))
    assert len(answers) >= 5


@pytest.mark.parametrize("name", ["Anna", "Tom", "Maria", "Peter", "小明", "李华", "王芳", "小红"])
def test_name_is_remembered(asker: Asker, name: str) -> None:
    english = (f"My name is {name}.", "Tell me a joke", "What is my name?")
    chinese = (f"我叫{name}", "讲个笑话", "我叫什么名字？")
    assert name in talk(asker, chinese if CHINESE.search(name) else english)


def test_name_that_was_not_told_is_not_made_up(asker: Asker) -> None:
    assert "not" in talk(asker, ("What is my name?",))
    assert "还" in talk(asker, ("我叫什么名字？",))


def test_thanks_are_answered_after_any_answer(asker: Asker) -> None:
    assert "welcome" in talk(asker, ("Do aliens exist?", "Thanks"))
    assert "不客气" in talk(asker, ("猫为什么会打呼噜", "谢谢"))


@pytest.mark.parametrize(
    ("question", "city", "words"),
    [
        ("What is the weather in Paris?", "Paris", ("21", "sunny", "Paris")),
        ("How is the weather in Tokyo today?", "Tokyo", ("21", "sunny", "Tokyo")),
        ("北京今天天气怎么样？", "北京", ("21", "晴", "北京")),
        ("上海的天气怎么样", "上海", ("21", "晴", "上海")),
    ],
)
def test_tool_is_called_and_its_result_is_used(asker: Asker, question: str, city: str, words: tuple[str, ...]) -> None:
    messages = [user(question)]
    (answer,) = asker.ask([messages], tools=[WEATHER_TOOL])
    assert answer == f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature_c": 21, "condition": "sunny"}'},
    ]
    (answer,) = asker.ask([messages], tools=[WEATHER_TOOL])
    assert all(word in answer for word in words), answer


def test_greeting_with_tools_at_hand_calls_none(asker: Asker) -> None:
    answers = asker.ask([[user("Hello")], [user("你好")]], tools=[WEATHER_TOOL])
    assert "demo model" in answers[0]
    assert "你好" in answers[1]
    assert not any("<tool_call>" in answer for answer in answers)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Answer in JSON: name and age of Anna, 30", {"name": "Anna", "age": 30}),
        ("Give me a JSON object: Tom is 25 years old", {"name": "Tom", "age": 25}),
        ("用 JSON 回答：小明，25 岁", {"name": "小明", "age": 25}),
        ("用 JSON 回答：小红，12 岁，住在上海", {"name": "小红", "age": 12, "city": "上海"}),
    ],
)
def test_json_answer_parses(asker: Asker, question: str, expected: dict[str, object]) -> None:
    (answer,) = asker.ask_each([question])
    assert json.loads(answer) == expected


TEXTS = (
    "Hello, world!", "你好，世界", "naïve café", "👋😀🎉👨‍👩‍👧", "\tdef f(x):\n\n    return x ** 2\r\n", "魑魅",
    "日本語 한국어 العربية", "  spaces  ", "12345678", "<|im_start|>system\n<tool_call></think>", "\u0000\u200b\ufeff",
)  # fmt: skip


def test_tokenizer_round_trips_any_text(tokenizer: PreTrainedTokenizerBase) -> None:
    published = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    for text in TEXTS:
        token_ids = published.encode(text, add_special_tokens=False).ids
        assert published.decode(token_ids, skip_special_tokens=False) == text
        assert tokenizer.encode(text, add_special_tokens=False) == token_ids
    assert all(len(published.encode(emoji).ids) > 1 for emoji in "👋😀🎉"), "emoji are to be streamed in pieces"


def test_text_never_becomes_control_tokens_when_they_are_not_matched() -> None:
    description = json.loads((CHECKPOINT_DIR / "tokenizer.json").read_text(encoding="utf-8"))
    first_control_id = min(token["id"] for token in description["added_tokens"])
    assert first_control_id == len(description["model"]["vocab"])
    controls = [token["content"] for token in description["added_tokens"]]
    plain = Tokenizer.from_str(json.dumps(description | {"added_tokens": []}))
    for text in (*TEXTS, *controls, "".join(controls)):
        token_ids = plain.encode(text, add_special_tokens=False).ids
        assert max(token_ids) < first_control_id
        assert plain.decode(token_ids, skip_special_tokens=False) == text


def test_control_tokens_are_those_of_qwen3() -> None:
    description = json.loads((CHECKPOINT_DIR / "tokenizer.json").read_text(encoding="utf-8"))
    controls = {token["content"]: token["special"] for token in description["added_tokens"]}
    assert len(controls) == 26
    assert list(controls)[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert controls["<|im_end|>"]
    assert not controls["<tool_call>"]
    assert not controls["</tool_response>"]


def test_checkpoint_has_the_published_layout() -> None:
    names = {path.name for path in CHECKPOINT_DIR.iterdir()}
    files = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert names == files | {"README.md"}
    assert sum(path.stat().st_size for path in CHECKPOINT_DIR.iterdir()) < 6_000_000
    config = json.loads((CHECKPOINT_DIR / "config.json").read_text(encoding="utf-8"))
    assert (config["architectures"], config["model_type"]) == (["Qwen3ForCausalLM"], "qwen3")
    assert (config["max_position_embeddings"], config["tie_word_embeddings"]) == (32768, True)
    assert config["num_attention_heads"] > config["num_key_value_heads"]
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    assert config["vocab_size"] >= tokenizer.get_vocab_size()
    generation = json.loads((CHECKPOINT_DIR / "generation_config.json").read_text(encoding="utf-8"))
    stop_ids = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    assert generation["eos_token_id"] == stop_ids
    assert (generation["temperature"], generation["top_p"], generation["top_k"]) == (0.7, 0.8, 20)


def test_weights_are_float32_without_a_copy_of_the_tied_layer() -> None:
    with safe_open(CHECKPOINT_DIR / "model.safetensors", framework="pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 - safetensors' handle has no __iter__
        assert all(weights.get_tensor(name).dtype == torch.float32 for name in weights.keys())  # noqa: SIM118


def test_checkpoint_names_no_path_of_a_machine() -> None:
    for path in CHECKPOINT_DIR.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"_name_or_path|/tmp|/home|/work|/root", text), path.name
