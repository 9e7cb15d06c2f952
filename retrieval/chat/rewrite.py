"""Follow-up questions made to stand alone, so that a search knows what "and what colour is it?" is about."""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from retrieval.chat.budget import cut
from retrieval.chat.check.claims import Claim, not_spaced, strip_citations
from retrieval.chat.check.language import UNKNOWN, language
from retrieval.chat.sanitize import printable
from retrieval.turn import Turn

MAX_QUERY_CHARS = 400
_MAX_TOPIC_WORDS = 8
_ELLIPSIS_TOKENS = 3
_POINTING = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|ones?|there|here|"
    r"same|former|latter|others?|another|either|neither|both)\b",
    re.IGNORECASE,
)
# Uses of those words that point at nothing said before.
_EXISTENTIAL = re.compile(
    r"\b(?:is|are|was|were|isn't|aren't|will|can)\s+there\b|\bthere\s+(?:is|are|was|were|'s)\b|\bthere's\b|\bone\s+of\s+the\b|"
    r"\b(?:photos?|images?|pictures?|something|anything|someone|anyone|people|places?|things?|animals?|man|woman|person)\s+that\b|"
    r"\bis\s+it\s+(?:raining|snowing|possible|true)\b|\bin\s+this\s+collection\b|\bno\s+one\b|\bthis\s+(?:photo|image|picture)\b",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^\W*(?:and|but|or|so|then|also|why|what about|how about|what else|who else|which one|which of|more|again|"
    r"any more|anything else|what if|really|are you sure|only|just|not)\b",
    re.IGNORECASE,
)


#: Languages by the names that a model knows them by.
NAMES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
    "he": "Hebrew",
    "el": "Greek",
    "th": "Thai",
    "hi": "Hindi",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
}
# What points back, or goes on, in other languages. A language that has no line is taken to point back.
_ELSEWHERE = {
    "zh": r"[它他她]们?|这|那|其|该|上面|刚才|呢|第[一二三四五六七八九十\d]+[张个幅]|还有|另外|为什么|什么颜色|再来|同样",
    "ja": r"それ|これ|あれ|その|この|あの|そこ|ここ|彼|では|じゃあ|他に|もう|なぜ|番目|枚目",
    "ko": r"그것|이것|저것|그|이|저|거기|여기|왜|다른|더|번째",
    "de": r"\b(?:und|aber|oder|es|er|sie|ihn|ihm|ihr\w*|sein\w*|das|dies\w*|jen\w*|dort|da|dessen|deren|welche\w?|warum|noch|auch|"
    r"nur|andere\w?|beide|gleiche\w?|zweite\w?|erste\w?)\b",
    "fr": r"\b(?:et|mais|ou|il|elle|ils|elles|le|la|les|lui|leur|son|sa|ses|ce|cela|ça|celui|celle|là|y|en|pourquoi|aussi|autre|"
    r"encore|même|deuxième|premi\w+)\b",
    "es": r"\b(?:y|pero|o|él|ella|ellos|ellas|lo|la|los|las|su|sus|ese|esa|eso|este|esta|esto|allí|ahí|por qué|también|otro|otra|más|"
    r"mism\w+|segund\w+|primer\w*)\b",
}


def points_back(question: str, spoken: str) -> bool:
    """Whether a question in a language other than English points to what was said before, or goes on with it."""
    known = _ELSEWHERE.get(spoken)
    return known is None or bool(re.search(known, question, re.IGNORECASE)) or len(Claim(question).content) < 2


def stands_alone(question: str, history: Sequence[Turn], *, has_image: bool = False, by_model: bool = False) -> bool:
    """Whether a question can be searched for as it is.

    It can when there is no history. Otherwise it cannot when it points back ("it", "those", "the same"),
    save where such a word does not ("is there", "a photo that shows"; with an image attached, "this" is the
    image); when it starts as a continuation ("and", "what about", "why"); or when it has no content word, or
    one among at most three words ("what colour?"). A question wrongly taken for a follow-up only costs a
    rewrite. The rule knows English. In other languages a model decides it, which is asked for a rewrite (`by_model`);
    without one it goes by words that point back in a few languages, and in the others a question never stands alone.
    """
    if not history:
        return True
    spoken = language(question)
    if spoken != "en" and not has_image:
        return not (by_model or points_back(question, spoken))
    if _LEADING.search(question):
        return False
    told = _EXISTENTIAL.sub(" ", question)
    if has_image:
        told = re.sub(r"\b(?:this|it|that)\b", " ", told, flags=re.IGNORECASE)
        return not _POINTING.search(told)
    claim = Claim(question)
    meant = len(claim.content) + len(claim.numbers)
    return not _POINTING.search(told) and (meant >= 2 or (meant == 1 and len(claim.tokens) > _ELLIPSIS_TOKENS))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a model made of a question: the question to search for, and the same in another language; "" for neither."""

    query: str = ""
    translation: str = ""


def translation_messages(question: str, other: str) -> list[BaseMessage]:
    """What asks a model for a question in another language, to search with."""
    return [
        SystemMessage(
            f"You translate a question into {NAMES[other]}. Keep names and numbers. Do not answer. Reply with the "
            "translation on one line, and nothing else."
        ),
        HumanMessage(f"Question to translate: {_one_line(question)}\nTranslation:"),
    ]


def rewrite_messages(question: str, history: Sequence[Turn], tokens: int, *, other: str = "") -> list[BaseMessage]:
    """What asks a model for the stand-alone form of `question`, and for that in the language `other` if one is given.

    The history is cut to about `tokens`.
    """
    lines: list[str] = []
    left = tokens
    for turn in reversed(history):
        told = f"Q: {_one_line(turn.question)}\nA: {_one_line(strip_citations(turn.answer))}"
        if (told := cut(told, min(left, 200))) in ("", "…"):
            break
        left -= len(told) // 3
        lines.insert(0, told)
        if left < 20:
            break
    return [
        SystemMessage(
            "You rewrite the last question of a conversation so that it can be understood on its own: put what "
            "words such as 'it' or 'there' stand for in their place. Use only words of the conversation. Do not "
            "answer. Keep the question's language. If it can be understood on its own already, repeat it. Reply with "
            "the rewritten question on one line, and nothing else."
            + (f" Then put the same question in {NAMES[other]} on a second line." if other else "")
        ),
        HumanMessage(
            "Conversation:\n" + "\n".join(lines) + f"\n\nLast question: {_one_line(question)}\nRewritten question:"
        ),
    ]


def checked_rewrite(reply: str, question: str, history: Sequence[Turn], *, other: str = "") -> Rewritten:
    """A model's rewrite if it is one; nothing for what is empty, long, has words from elsewhere, or answers.

    Each content word, name and number must come from the question or the history, and at least half of the
    question's own content words must still be there. Outside English words are built together, and the history may be
    in another language: there half of what is new must come from the conversation, and all numbers. other: the language
    of the second line.
    """
    lines = _lines(reply)
    if not lines or len(lines) > 2 + bool(other):
        return Rewritten()
    text = lines[0]
    if not text or len(text) > MAX_QUERY_CHARS:
        return Rewritten()
    spoken = language(question)
    if spoken == "en" == language(text):
        kept = _checked_english(text, question, history)
    else:
        kept = text if _is_plausible(text, question, history) else None
    if kept is None:
        return Rewritten()
    return Rewritten(kept, checked_translation(lines[1], kept, other) if other and len(lines) > 1 else "")


def checked_translation(reply: str, question: str, other: str) -> str:
    """A question in the language `other`, if that is what a reply is; else ""."""
    lines = _lines(reply)
    if len(lines) != 1 or len(lines[0]) > MAX_QUERY_CHARS or len(lines[0]) > 6 * len(question) + 60:
        return ""
    numbers = [set(re.findall(r"\d+", text)) for text in (lines[0], question)]
    # A short question may have no word by which its language is told.
    return lines[0] if numbers[0] <= numbers[1] and language(lines[0]) in (other, UNKNOWN) else ""


def _lines(reply: str) -> list[str]:
    lines = (re.sub(r"^[\w ]{0,24}(?:question|translation):\s*", "", each, flags=re.I) for each in reply.splitlines())
    return [line for each in lines if (line := printable(each).strip().strip("\"'“”「」").strip())]


def _is_plausible(text: str, question: str, history: Sequence[Turn]) -> bool:
    told = " / ".join([question, *(f"{turn.topic} / {turn.question} / {turn.answer}" for turn in history)])
    if not Claim(text).numbers <= Claim(told).all_numbers or language(text) != language(question):
        return False
    if len(text) > 3 * max(len(question), *(len(turn.topic) for turn in history)) + 20:
        return False
    written, known = _units(text), _units(told)
    if language(told) != language(question) and not written & _units(question):
        # The topic was spoken of in another language: of its words none need be there.
        return bool(written)
    return bool(written) and 2 * len(written & known) >= len(written)


def _units(text: str) -> set[str]:
    """Stems of words, and single characters of scripts that set no spaces."""
    return {unit for stem in Claim(text).content for unit in (stem if not_spaced(stem) else (stem,))}


def _checked_english(text: str, question: str, history: Sequence[Turn]) -> str | None:
    new, asked = Claim(text), Claim(question)
    known = Claim(" / ".join([question, *(f"{turn.topic} / {turn.question} / {turn.answer}" for turn in history)]))
    if not set(new.content) <= known.stems or not new.numbers <= known.all_numbers:
        return None
    kept = len(set(asked.content) & set(new.content))
    return text if new.content and 2 * kept >= len(asked.content) else None


def rewrite_by_rules(question: str, history: Sequence[Turn]) -> str:
    """The question with the content words of the last topic behind it: "Is it old? (bridge, river)"."""
    if not history:
        return question
    if language(question) != "en":
        # What it has of its own; what was found before stands beside it.
        return question if Claim(question).content else history[-1].topic
    asked = Claim(question)
    topic = [word for stem, word in Claim(history[-1].topic).content.items() if stem not in asked.content]
    return f"{question.strip()} ({', '.join(topic[:_MAX_TOPIC_WORDS])})" if topic else question


def _one_line(text: str) -> str:
    return " ".join(text.split())
