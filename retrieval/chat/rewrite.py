"""Follow-up questions made to stand alone, so that a search knows what "and what colour is it?" is about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from retrieval.chat.budget import cut
from retrieval.chat.check.claims import Claim, strip_citations
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


def stands_alone(question: str, history: Sequence[Turn], *, has_image: bool = False) -> bool:
    """Whether a question can be searched for as it is.

    It can when there is no history. Otherwise it cannot when it points back ("it", "those", "the same"),
    save where such a word does not ("is there", "a photo that shows"; with an image attached, "this" is the
    image); when it starts as a continuation ("and", "what about", "why"); or when it has no content word, or
    one among at most three words ("what colour?"). A question wrongly taken for a follow-up only costs a
    rewrite; the rule knows English, and in other languages goes by the number of words alone.
    """
    if not history:
        return True
    if _LEADING.search(question):
        return False
    told = _EXISTENTIAL.sub(" ", question)
    if has_image:
        told = re.sub(r"\b(?:this|it|that)\b", " ", told, flags=re.IGNORECASE)
        return not _POINTING.search(told)
    claim = Claim(question)
    meant = len(claim.content) + len(claim.numbers)
    return not _POINTING.search(told) and (meant >= 2 or (meant == 1 and len(claim.tokens) > _ELLIPSIS_TOKENS))


def rewrite_messages(question: str, history: Sequence[Turn], tokens: int) -> list[BaseMessage]:
    """What asks a model for the stand-alone form of `question`; the history is cut to about `tokens`."""
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
            "answer. Reply with the rewritten question on one line, and nothing else."
        ),
        HumanMessage(
            "Conversation:\n" + "\n".join(lines) + f"\n\nLast question: {_one_line(question)}\nRewritten question:"
        ),
    ]


def checked_rewrite(reply: str, question: str, history: Sequence[Turn]) -> str | None:
    """A model's rewrite if it is one; None for what is empty, long, has words from elsewhere, or answers.

    Each content word, name and number must come from the question or the history, and at least half of the
    question's own content words must still be there.
    """
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    if not lines:
        return None
    text = re.sub(r"^(?:rewritten )?question:\s*", "", lines[0], flags=re.IGNORECASE).strip().strip("\"'“”").strip()
    if not text or len(text) > MAX_QUERY_CHARS or len(lines) > 2:
        return None
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
    asked = Claim(question)
    topic = [word for stem, word in Claim(history[-1].topic).content.items() if stem not in asked.content]
    return f"{question.strip()} ({', '.join(topic[:_MAX_TOPIC_WORDS])})" if topic else question


def _one_line(text: str) -> str:
    return " ".join(text.split())
