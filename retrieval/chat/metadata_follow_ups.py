"""Questions that go on from one of count or metadata: "and how many show coffee?", 其中有几张猫的？, "which one?"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from retrieval.chat.metadata_questions import Asked, Kind, metadata_question, narrowed

_LED = r"\W*(?:(?:and|so|but|ok|okay|then)\W+)?"
_THEM = r"(?:them|those|these)"
#: Of what was counted before, those that are about something too.
_NARROWING = (
    re.compile(rf"{_LED}how many of {_THEM}\b(?P<topic>.+)", re.IGNORECASE),
    re.compile(rf"{_LED}(?:which|what|show me)(?: ones)? of {_THEM}\b(?P<topic>.+)", re.IGNORECASE),
    re.compile(r"\W*(?:这些|那些)?(?:照片)?其中(?:里面)?有?(?:多少|几)[张幅个]?(?:照片|图片)?(?P<topic>.+)"),
    re.compile(r"\W*(?:这些|那些)?(?:照片)?其中(?:有)?哪(?:些|几?张)(?P<topic>.+)"),
)
#: The same question about something else.
_ANEW = (
    re.compile(
        rf"{_LED}how many (?P<topic>(?:are |were )?(?:(?:show|contain|have|depict|include|of|with|taken|from)\b).+)",
        re.IGNORECASE,
    ),
    re.compile(rf"{_LED}(?:what|how) about(?: {_THEM})?(?P<topic> .+)", re.IGNORECASE),
    re.compile(r"\W*and(?P<topic>(?: (?:of|with|in|from|before|after))?(?: [\w'-]+){1,3})\W*", re.IGNORECASE),
    re.compile(r"\W*(?:那么?|又|还)?有?(?:多少|几)[张幅](?:照片|图片)?(?P<topic>.+)"),
    re.compile(r"\W*(?:那么?|还有)?(?P<topic>[^，。]{1,12}?)呢\W*"),
)
#: The items that were counted.
_WHICH = re.compile(
    rf"{_LED}(?:(?:which|what) (?:ones?|photos?|pictures?|images?)(?: (?:is|are) (?:it|they|that|{_THEM}))?|"
    r"which(?: (?:is it|are they))?|(?:can you )?(?:show|list|name)(?: me)? "
    rf"(?:it|{_THEM}|the photos?))\W*(?:please\W*)?"
    r"|\W*(?:那么?|都)?是?(?:哪(?:一|几|两|二|三)?[张幅]|哪些)(?:照片|图片)?(?:呢|啊)?\W*"
    r"|\W*(?:给我|让我)?(?:看看|列出来|列一下)(?:吧)?\W*",
    re.IGNORECASE,
)
# What asks for something else, or points at one item.
_OTHER = re.compile(
    r"\b(?:what|which|who|whose|where|when|why|how|is|are|was|were|does|did|do|can|it|its|this|that|one|ones|the|colou?r|more)\b"
    r"|第[一二三四五\d]+[张幅]|[它谁哪]|什么|怎么|为什么|颜色|[这那][张个幅]|^[只条头匹辆位个张幅]",
    re.IGNORECASE,
)
_MAX_CHARS = 120
_MEANING = re.compile(r"^\W*(?:张|是|有|里有|里面有|拍了|拍的是|拍的)+|\W*(?:也|都)")


def asked_in_talk(question: str, before: Sequence[str], *, lists: bool = False) -> Asked | None:
    """What a question asks for, of count or metadata, in the light of the questions before it; None for all others.

    lists: as of `metadata_question`.
    """
    last: Asked | None = None
    for number, each in enumerate((*before, question)):
        plain = " ".join(each.split())
        found = _follow_up(plain, last) if last is not None and len(plain) <= _MAX_CHARS else None
        last = found or metadata_question(each, follows=number > 0, lists=lists)
        asked = last
        if last is not None and last.kind not in ("count", "list"):
            last = None
    return asked


def _follow_up(question: str, last: Asked) -> Asked | None:
    if _WHICH.fullmatch(question):
        return replace(last, kind="list")
    for pattern in _NARROWING:
        if match := pattern.fullmatch(question):
            kind: Kind = "list" if re.search(r"which|what|show|哪", question[: match.start("topic")], re.I) else "count"
            return _narrower(replace(last, kind=kind), match["topic"])
    for place, pattern in enumerate(_ANEW):
        if match := pattern.fullmatch(question):
            told = match["topic"]
            # The first one says itself what it asks for.
            if place and _OTHER.search(told):
                return None
            return _anew(replace(last, kind="count") if place in (0, 3) else last, told)
    return None


def _narrower(last: Asked, said: str) -> Asked | None:
    new = narrowed(_MEANING.sub("", said))
    if not (new.topic or new.period or new.camera):
        return None
    topics = [each for each in (last.topic, *last.also, new.topic) if each]
    return replace(
        last,
        topic=topics[0] if topics else "",
        also=tuple(topics[1:]),
        period=new.period or last.period,
        camera=new.camera or last.camera,
    )


def _anew(last: Asked, said: str) -> Asked | None:
    """The same about something else; only a time or a camera says more of what was asked about."""
    new = narrowed(_MEANING.sub("", said))
    if new.topic:
        return replace(
            last, topic=new.topic, also=(), period=new.period or last.period, camera=new.camera or last.camera
        )
    return _narrower(last, said)
