"""Questions that the demo model does not know: many topics in many forms, near misses of known ones, and noise.

The variety matters more than the sense: the model has to learn that whatever is not known gets the same answer.
"""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from random import Random

from inference_server.demo_model.corpus_chinese import CHINESE_FALLBACKS, CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_FALLBACKS, ENGLISH_TOPICS
from inference_server.demo_model.corpus_fill import fill
from inference_server.demo_model.corpus_noise import noise
from inference_server.demo_model.corpus_prose import chinese_sentence, english_sentence, pasted_text, task
from inference_server.demo_model.corpus_types import expand, pick_answer
from inference_server.demo_model.corpus_unseen_forms import CHINESE_FORMS, ENGLISH_FORMS
from inference_server.demo_model.corpus_words import VERBS, chinese_word, english_word, random_characters

Turn = tuple[str, str]
# Characters; most of a few hundred tokens, some of several thousand.
_SHORTEST_PASTE, _PASTE_OCTAVES = 150, 5.5


def fallback(random: Random, chinese: bool) -> str:
    """The answer to anything unseen, in the language of the question."""
    return pick_answer(random, CHINESE_FALLBACKS if chinese else ENGLISH_FALLBACKS)


def unseen_turn(random: Random, chinese: bool) -> Turn:
    """A question that has no answer in the corpus, mostly in the language asked for, and what is said to it."""
    if random.random() < 0.14:
        question, chinese = noise(random, chinese)
    else:
        kinds = (_from_form, _near_miss, _long, _word_salad, _statement)
        question = random.choices(kinds, weights=(62, 9, 9, 8, 6))[0](random, chinese)
    return question, fallback(random, chinese)


def unseen_question(random: Random, chinese: bool) -> str:
    """The question alone."""
    return unseen_turn(random, chinese)[0]


def pasted_turn(random: Random, chinese: bool, octaves: float = _PASTE_OCTAVES) -> Turn:
    """A long text, often with a wish before or after it; its own language may be another."""
    characters = int(_SHORTEST_PASTE * 2 ** random.uniform(0, octaves))
    wish = task(random, chinese) if random.random() < 0.6 else ""
    in_chinese = chinese if not wish or random.random() < 0.7 else not chinese
    text = pasted_text(random, in_chinese, characters // 3 if in_chinese else characters)
    if not wish:
        chinese = any("\u4e00" <= letter <= "\u9fff" for letter in text)
    joint = random.choice((":\n", "\n\n", ": ", "\n"))
    question = text if not wish else wish + joint + text if random.random() < 0.6 else text + "\n\n" + wish
    return question, fallback(random, chinese)


def _from_form(random: Random, chinese: bool) -> str:
    form = random.choice(CHINESE_FORMS if chinese else ENGLISH_FORMS)
    text = fill(random, expand(random, form), chinese)
    if chinese:
        return random.choice((
            "", "", "", "", "请问", "你好，", "我想知道",
        )) + text + random.choice((
            "", "", "？", "？", "。", "?", "！",
        ))
    opening = random.choice(("", "", "", "", "Please ", "Hello, ", "Could you tell me: ", "Hey, "))
    text = opening + (text if not opening or random.random() < 0.3 else text[:1].lower() + text[1:])
    return recase(random, text) + random.choice(("", "", "?", "?", ".", "!"))


def recase(random: Random, text: str) -> str:
    """As written, or all in small letters, or now and then in capitals."""
    roll = random.random()
    return text.lower() if roll < 0.3 else text.upper() if roll < 0.34 else text


def _known(random: Random, chinese: bool) -> str:
    topic = random.choice(CHINESE_TOPICS if chinese else ENGLISH_TOPICS)
    return expand(random, random.choice(topic.questions))


def _near_miss(random: Random, chinese: bool) -> str:
    """A known question that goes on, so that its beginning alone must not decide."""
    known, joint = _known(random, chinese), random.choice(("的", "和", "在", "比", "，但是", "")) if chinese else " "
    if chinese:
        return known + joint + fill(random, random.choice((
            "N里的N", "NV的N", "N是什么", "怎么V N", "谁V了N",
        )), True) + "？"
    tail = random.choice((
        "N of the A N", "in the N", "about N and N", "and V the N", "than a N", "when the N V", "for my N",
    ))
    return recase(random, known + joint + fill(random, tail, False)) + random.choice(("", "?"))


def _long(random: Random, chinese: bool) -> str:
    forms = CHINESE_FORMS if chinese else ENGLISH_FORMS
    count = 60 if random.random() < 0.03 else random.choice((2, 2, 3, 3, 4, 6, 8, 12, 18))
    sentences = (fill(random, expand(random, random.choice(forms)), chinese) for _ in range(count))
    joint = random.choice(("，", "。", "？")) if chinese else random.choice((". ", ", ", "? ", "\n"))
    return joint.join(sentences) + random.choice(("", joint.strip()))


def _statement(random: Random, chinese: bool) -> str:
    """One or a few declarative sentences, and perhaps a question about them."""
    count = random.choice((1, 1, 1, 2, 3))
    if chinese:
        text = "".join(chinese_sentence(random) for _ in range(count))
    else:
        text = " ".join(english_sentence(random) for _ in range(count))
    return text + (("" if chinese else " ") + _from_form(random, chinese) if random.random() < 0.4 else "")


def _word_salad(random: Random, chinese: bool) -> str:
    """Words of known questions in a meaningless order, mixed with others."""
    count = random.randint(2, 8)
    if chinese:
        pieces = [
            random.choice((_known(random, True)[:2], chinese_word(random), random_characters(random, 1)))
            for _ in range(count)
        ]
        return "".join(pieces)
    words = [
        random.choice((*_known(random, False).split(), english_word(random), random.choice(VERBS)))
        for _ in range(count + 1)
    ]
    return recase(random, " ".join(words)) + random.choice(("", "", "?"))
