"""Tokenizers as checkpoints bring them: added tokens, rules of their own, older files, templates in every place."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

from inference_server.chat.added_tokens import AddedTokens, any_of
from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.errors import StartupError
from tests.chat_checkpoints import TEMPLATES, by_transformers, reference, write_tokenizer

TEMPLATE = TEMPLATES["qwen3_2507"]
HELLO = [Message(Role.USER, "Hello, 你好 it's 12345 e\u0301\n\n x")]
WORDS: tuple[AddedToken | str, ...] = (
    "foobarium", "<product>", "New York", "éclair", "naïve token", "tool",
    AddedToken("<loc_12>", normalized=False), AddedToken("left", lstrip=True), AddedToken("right", rstrip=True),
    AddedToken("[both]", lstrip=True, rstrip=True, normalized=False), AddedToken("alone", single_word=True),
)  # fmt: skip
words = st.lists(
    st.one_of(
        st.sampled_from([str(word) for word in WORDS] + ["e\u0301clair", "_", " ", "\n", "é"]), st.text(max_size=3)
    )
).map("".join)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with added words."""
    return write_tokenizer(tmp_path_factory.mktemp("extended"), TEMPLATE, added=WORDS)


@pytest.fixture(scope="module")
def encoder(extended: Path) -> PromptEncoder:
    return PromptEncoder(extended)


@pytest.fixture(scope="module")
def transformers_tokenizer(extended: Path) -> PreTrainedTokenizerBase:
    return reference(extended)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("word", [str(word) for word in WORDS])
def test_added_words_are_their_own_ids_in_every_role(
    word: str, role: Role, encoder: PromptEncoder, transformers_tokenizer: PreTrainedTokenizerBase
) -> None:
    messages = [Message(role, f"a {word} b<|im_end|>")]
    ids = encoder.encode(messages)
    assert transformers_tokenizer.convert_tokens_to_ids(word) in ids
    plain = [Message(role, f"a {word} b<")]
    assert encoder.encode(plain) == by_transformers(transformers_tokenizer, plain)


@given(turns=st.lists(st.tuples(st.sampled_from(Role), words), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_added_words_tokenise_as_those_of_transformers(
    encoder: PromptEncoder, transformers_tokenizer: PreTrainedTokenizerBase, turns: list[tuple[Role, str]]
) -> None:
    messages = [Message(role, text) for role, text in turns]
    assert encoder.encode(messages) == by_transformers(transformers_tokenizer, messages)


flagged = st.builds(
    AddedToken,
    # tokens that begin or end with white space overlap others in the library, which then fails itself ("bad split")
    st.text("ab<> ", min_size=1, max_size=4).filter(lambda text: bool(text) and text == text.strip()),
    single_word=st.booleans(), lstrip=st.booleans(), rstrip=st.booleans(), normalized=st.just(False),
)  # fmt: skip


@given(st.lists(flagged, max_size=6, unique_by=lambda token: token.content), st.text("ab<> \n\u3000é_", max_size=30))
@settings(max_examples=500, deadline=None)
def test_added_tokens_are_found_where_the_library_finds_them(tokens: list[AddedToken], text: str) -> None:
    library = Tokenizer(WordLevel({"\0": 0}, unk_token="\0"))
    library.add_tokens(tokens)
    encoding = library.encode(text)
    expected = [(*at, i) for at, i in zip(encoding.offsets, encoding.ids, strict=True) if i]
    ids = {token.content: (token_id, token) for token_id, token in library.get_added_tokens_decoder().items()}
    found = [(span.start, span.stop, span.token_id) for span in AddedTokens(ids).spans(text)]
    assert found == expected


def test_tokens_with_one_beginning_are_not_tried_one_by_one() -> None:
    pattern = any_of(f"<|audio_{number}|>" for number in range(1_000))
    assert pattern.count("audio") == 1
    assert re.findall(pattern, "<|audio_7|><|audio_77|><|audio_1000|>") == ["<|audio_7|>", "<|audio_77|>"]


def change_rules(directory: Path, change: Callable[[Tokenizer], None]) -> None:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(directory / "tokenizer.json"))


def split_at_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def no_normalizer(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([])


def lower_case(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def prefix_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize("rules", [split_at_spaces, no_normalizer, lower_case, prefix_space])
@pytest.mark.parametrize("tokenizer_class", ["Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_the_rules_of_tokenizer_json_count(
    rules: Callable[[Tokenizer], None], tokenizer_class: str, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, TEMPLATE, tokenizer_class=tokenizer_class)
    change_rules(tmp_path, rules)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rendered = f"<|im_start|>user\n{HELLO[0].content}<|im_end|>\n<|im_start|>assistant\n"
    expected = tokenizer.encode(rendered, add_special_tokens=False).ids
    assert PromptEncoder(tmp_path).encode(HELLO) == expected
    changed = expected != PromptEncoder(CHECKPOINT_DIR).encode(HELLO)
    assert changed


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": None}, {"tokenizer_class": "PreTrainedTokenizerFast"}])
def test_special_tokens_in_a_template_are_those_of_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    template = "{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ bos_token }}|{{ messages[0].content }}"
    write_tokenizer(tmp_path, template, **config)
    path = tmp_path / "tokenizer_config.json"
    for names in ((), ("pad_token", "unk_token"), ("eos_token",)):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in fields.items() if key not in names}))
        assert PromptEncoder(tmp_path).encode(HELLO) == by_transformers(reference(tmp_path), HELLO)


def older_files(directory: Path, with_config: bool) -> None:
    """vocab.json, merges.txt and where the added tokens stand in older checkpoints."""
    write_tokenizer(directory, TEMPLATE)
    content = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (directory / "added_tokens.json").write_text(json.dumps(added))
    if with_config:
        path = directory / "tokenizer_config.json"
        decoder = {token.pop("id"): token for token in content["added_tokens"]}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": decoder}))


@pytest.mark.parametrize("with_config", [True, False])
def test_vocab_and_merges_load_without_tokenizer_json(with_config: bool, tmp_path: Path) -> None:
    older_files(tmp_path, with_config)
    expected = PromptEncoder(CHECKPOINT_DIR).encode(HELLO)
    assert PromptEncoder(tmp_path).encode(HELLO) == expected == by_transformers(reference(tmp_path), HELLO)


def test_merges_without_a_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    older_files(tmp_path, with_config=True)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(StartupError, match=r"no tokenizer\.json there, and not vocab\.json and merges\.txt either"):
        PromptEncoder(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(StartupError, match=r"vocab\.json: cannot be read as a tokenizer"):
        PromptEncoder(tmp_path)


OWN, OTHER = "{% for m in messages %}{{ m.content }}{% endfor %}own", "other"
NAMED = [{"name": "tool_use", "template": OTHER}, {"name": "default", "template": OWN}]


def as_jinja(directory: Path) -> None:
    write_tokenizer(directory, OTHER)
    (directory / "chat_template.jinja").write_text(OWN)


def as_json(directory: Path) -> None:
    write_tokenizer(directory, None)
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": OWN}))


def as_list(directory: Path) -> None:
    write_tokenizer(directory, None, chat_template=NAMED)


def as_list_in_json(directory: Path) -> None:
    write_tokenizer(directory, None)
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": NAMED}))


def beside_additional(directory: Path) -> None:
    as_jinja(directory)
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool_use.jinja").write_text(OTHER)


def json_beside_another(directory: Path) -> None:
    write_tokenizer(directory, OWN)
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": OTHER}))


@pytest.mark.parametrize("write", [as_jinja, as_json, as_list, as_list_in_json, beside_additional, json_beside_another])
def test_a_chat_template_is_found_where_checkpoints_have_it(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    ids = PromptEncoder(tmp_path).encode([Message(Role.USER, "Hello ")])
    assert reference(tmp_path).decode(ids) == "Hello own"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "chat_template.json: not valid JSON"),
        ("[]", "chat_template.json: expected a JSON object"),
        ("{}", "the tokenizer has no chat template"),
        (json.dumps({"chat_template": NAMED[:1]}), "expected a chat template named default, got tool_use"),
        (json.dumps({"chat_template": "{{ 'open }}"}), "the chat template cannot be rendered"),
        (json.dumps({"chat_template": "{{ absent.field }}"}), "the chat template cannot be rendered"),
    ],
)
def test_broken_templates_end_the_start_with_what_is_wrong(content: str, said: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, None)
    (tmp_path / "chat_template.json").write_text(content)
    with pytest.raises(StartupError) as raised:
        PromptEncoder(tmp_path)
    assert said in str(raised.value)
    shutil.rmtree(tmp_path)
