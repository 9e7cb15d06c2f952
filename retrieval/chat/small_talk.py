"""Messages that no search answers: courtesy, and questions about the collection as a whole and about the assistant."""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from backends.base import Modality, Record, matches
from backends.errors import Unsupported
from backends.filters import And, Compare, Where
from retrieval.chat.counting import as_result
from retrieval.chat.evidence import INTERNAL_FIELDS
from retrieval.chat.sanitize import shield
from retrieval.chat.wording import counted, words
from retrieval.search.facets import count_facets
from retrieval.search.filters import Filter, and_modality, as_where
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever

Kind: TypeAlias = Literal["welcome", "hello", "bye", "assistant", "overview"]

#: Records that are read for a sample and its facets.
SAMPLED = 2000
EXAMPLES = 4
_TOP = 3
_MOST_FIELDS = 2
_MOST_VALUES = 60
_MOST_CHARS = 120

_THANKS = (
    r"(?:(?:ok|okay|great|good|perfect|cool|nice|awesome|wonderful|yes|no)\W+)?(?:many |a lot of )?"
    r"(?:thanks?(?: you| u)?|thx|ty|cheers|much appreciated)(?: (?:very much|so much|a lot|again|a bunch|for (?:the|your) help|"
    r"for that|everyone|that(?:'s| is) (?:all|great|perfect)))*"
    r"|(?:好的?|太好了)?[，,\s]*(?:谢谢|多谢|感谢|謝謝|辛苦)(?:你|您|了|啦|大家|你的帮助|您的帮助)*"
    r"|(?:どうも)?ありがとう(?:ございま(?:す|した))?|감사합니다|고마워요?|(?:vielen |herzlichen )?danke?(?: schön| sehr| dir| ihnen)?"
    r"|merci(?: beaucoup| bien)?|(?:muchas )?gracias|grazie(?: mille)?|(?:muito )?obrigad[oa]|спасибо|bedankt|dank je"
)
_HELLO = (
    r"(?:hi|hello|hey|howdy|good (?:morning|afternoon|evening))(?: there| everyone| again)?|你好|您好|嗨|哈喽|早上好|晚上好"
    r"|こんにちは|こんばんは|おはよう(?:ございます)?|안녕하세요|hallo|guten (?:tag|morgen|abend)|moin|bonjour|salut|hola|ciao|olá|привет"
)
_BYE = r"(?:good ?)?bye(?: bye)?|see you(?: later)?|再见|再見|拜拜|さようなら|tschüss|auf wiedersehen|au revoir|adiós"
# "The library" may be a photo's: it is ours only where something says so.
_PLACE = (
    r"(?:(?:in )?here|in (?:this|my|your) (?:collection|library|album|archive|database|index|set|folder)|"
    r"(?:this|my|your) (?:collection|library|album|archive|database|index)|(?:in )?the (?:collection|database|index))"
)
_OVERVIEW = (
    rf"what(?:'s| is| are|s)?(?: there)?(?: all)? {_PLACE}|what (?:is|are) {_PLACE} (?:about|made of)"
    rf"|what (?:do|can) (?:you have|i find|i see|we have)(?: {_PLACE})?"
    rf"|what (?:photos?|pictures?|images?|kinds? of (?:photos?|pictures?|images?)|sorts? of things?) (?:are|is|do you have|can i find)"
    rf"(?: there)?(?: {_PLACE})?|what does {_PLACE} (?:contain|hold|have|include)"
    rf"|(?:describe|summari[sz]e|show me|tell me about) {_PLACE}|give me an overview(?: of {_PLACE})?|overview"
    rf"|how (?:many|big|large) (?:photos?|pictures?|images?|items?)?(?: (?:are|is|do you have|does it have))?(?: there)?(?: {_PLACE})?"
    rf"|how (?:big|large) is {_PLACE}"
    r"|(?:这里|这儿|这个?(?:集合|相册|图库|库|收藏)|你|里面)(?:里面?|中)?(?:都|一共|总共)?(?:有|包含)(?:些|一些)?(?:什么|哪些|多少)"
    r"(?:东西|内容|照片|图片|相片|张照片|张图片)?|(?:一共|总共)?有多少(?:张)?(?:照片|图片|相片)|介绍一下(?:这个)?(?:集合|相册|图库)|(?:里面|这里)是什么"
    r"|(?:这里|这个集合|这个相册)(?:里)?(?:都)?是(?:些)?什么|ここには?何があ(?:りますか|る)|was (?:ist|gibt es|befindet sich) (?:hier|in dieser sammlung)"
    r"(?: drin| alles)?|qu(?:'est-ce qu'il y a|e contient)(?: ici| cette collection| dans cette collection)?|qué hay (?:aquí|en esta colección)"
)
_ASSISTANT = (
    r"(?:who|what) are you|what(?:'s| is) your name|what can you do(?: for me)?|how do you work|what can i (?:ask|do)(?: you| here)?"
    r"|how (?:does this work|can you help(?: me)?|do i use (?:this|you))|help|are you (?:a |an )?(?:robot|bot|ai|human|person)"
    r"|你(?:是谁|是什么|叫什么(?:名字)?|能做什么|会做什么|会什么|可以做什么|能干什么|能帮我(?:做)?什么)|您是谁|怎么(?:用|使用)|帮助"
    r"|あなたは(?:誰|だれ|何)(?:ですか)?|何ができ(?:ますか|る)|wer bist du|wer sind sie|was kannst du(?: tun)?|was können sie(?: tun)?"
    r"|qui (?:es-tu|êtes-vous)|que peux-tu faire|quién eres|qué puedes hacer"
)
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("welcome", _THANKS),
    ("hello", _HELLO),
    ("bye", _BYE),
    ("overview", _OVERVIEW),
    ("assistant", _ASSISTANT),
)
_KINDS = [
    (kind, re.compile(rf"\W*(?:{pattern})(?:[\s,，]*(?:please|then|now|呢|啊|吗|呀))?\W*", re.IGNORECASE))
    for kind, pattern in _PATTERNS
]
_INSIDE = re.compile(r"\W*里面")


@dataclass(frozen=True, slots=True)
class Overview:
    """What is said of a collection, and the items that are shown of it, in the order of their numbers from 1."""

    text: str
    shown: tuple[Result, ...]


def kind_of_talk(message: str, *, follows: bool = False) -> Kind | None:
    """What a message is if it is courtesy alone, or asks about the collection or the assistant; None for others.

    follows: whether something was said before, which "inside" may be about.
    """
    if len(message) > 100 or (follows and _INSIDE.match(message)):
        return None
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(message)), None)


def overview(retriever: Retriever, where: Filter, language: str) -> Overview:
    """What a collection holds: exact counts, the most frequent values of its fields, and some captions.

    Fields and examples are of the first `SAMPLED` records. Captions that are stored beside their image are not counted.
    """
    clause = as_where(where)
    photos, texts = _count(retriever, clause, "image"), _count(retriever, clause, "text")
    records = _sample(retriever, clause)
    if not photos and not texts:
        return Overview(words("empty", language), ())
    kinds = [counted("photo", "photos", photos, language)] if photos else []
    kinds += [counted("text", "texts", texts, language)] if texts else []
    told = [words("holds", language).format(what=words("and", language).join(kinds))]
    facets = _facets(records, language)
    told += facets
    if facets and len(records) < photos + texts:
        told.append(words("sample", language).format(n=len(records)))
    shown = _examples(records)
    if shown:
        forms = [
            words("example", language).format(
                text=shield(record.text or "").text.split(" / ")[0][:_MOST_CHARS], number=n
            )
            for n, record in enumerate(shown, start=1)
        ]
        told.append(words("examples", language).format(examples=words("comma", language).join(forms)))
    return Overview(words("space", language).join(told), tuple(map(as_result, shown)))


def _count(retriever: Retriever, clause: Where | None, modality: Modality) -> int:
    counted_of = and_modality(clause, modality)
    every = retriever.backend.count(retriever.collection, counted_of)
    if modality == "image" or not every:
        return every
    captions = Compare("image", "exists", True)
    both = captions if counted_of is None else And((counted_of, captions))
    try:
        return every - retriever.backend.count(retriever.collection, both)
    except Unsupported:
        return every


def _sample(retriever: Retriever, clause: Where | None) -> list[Record]:
    pages = retriever.backend.scan(retriever.collection, with_vectors=False, batch=500)
    records = (record for page in pages for record in page.records)
    read = islice(records, 5 * SAMPLED)
    passing = (r for r in read if matches(clause, r.metadata, r.modality) and "image" not in r.metadata)
    return list(islice(passing, SAMPLED))


def _facets(records: Sequence[Record], language: str) -> list[str]:
    """The most frequent values of the fields that most records have, and that say something of more than one."""
    having = Counter(name for record in records for name in record.metadata if name not in INTERNAL_FIELDS)
    common = [name for name, count in having.most_common() if 2 * count >= len(records)]
    told = []
    for facet in count_facets(((r.metadata, r.modality) for r in records), common, _TOP).values():
        if len(facet.counts) + facet.more > _MOST_VALUES or not facet.counts or facet.counts[0][1] < 2:
            continue
        values = [
            words("value", language).format(value=shield(str(value)).text[:40], n=count)
            for value, count in facet.counts
        ]
        field = facet.field.replace("_", " ")
        told.append(words("most", language).format(field=field, values=words("comma", language).join(values)))
    return told[:_MOST_FIELDS]


def _examples(records: Sequence[Record]) -> list[Record]:
    """A few records with words to show, from all over the sample, photos before texts."""
    with_words = [record for record in records if shield(record.text or "").text]
    photos = [record for record in with_words if record.modality == "image"] or with_words
    step = max(1, len(photos) // EXAMPLES)
    return photos[::step][:EXAMPLES]
