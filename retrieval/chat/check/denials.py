"""Sentences that deny something of the whole collection, told from answers that only have a negation in them.

"None of the photos shows a horse" says that there is nothing; "the photo shows a man without a hat", "there is no doubt
that it is blue" and "I cannot tell the year, it is blue" say something.
"""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re

from retrieval.chat.check.claims import Claim

_DENIES = re.compile(
    r"\b(?:no|none|not|nothing|never|neither|nor|cannot|unclear|unknown|impossible|kein\w*|nicht|nichts|unklar|unbekannt|pas|aucune?|rien|"
    r"ning[uú]n\w*|nada|non|nessun\w*|não|nenhum\w*|geen|niet|нет|не)\b|n['’]t\b|没|沒|无|無|未|不|ません|ない|なかった|なし|없|않|لا|ليس|لم",
    re.IGNORECASE,
)
_COLLECTION = re.compile(
    r"\b(?:photo(?:graph)?s?|images?|pictures?|collection|evidence|sources?|captions?|fotos?|bild(?:er\w*|ern)?|sammlung|"
    r"aufnahmen?|quellen?|im[aá]gen(?:es)?|colección|immagin[ei]|collezione|imagens?|coleção|afbeelding(?:en)?|foto['’]s|"
    r"фото\w*|снимк\w*|коллекци\w*)\b|照片|图|圖|相册|集合|资料|来源|写真|画像|コレクション|사진|صور"
    r"|\b(?:i|we|ich|wir|je|nous|yo)\b|\bj['’]|我|\bit (?:is|was|['’]s) (?:not |im)possible|\bit isn['’]t possible"
    r"|\bthere (?:is|are|was|were) no\b|\bno hay\b|\bil n['’]y a\b|\bes gibt kein|\b(?:none|keine[rs]?) of\b",
    re.IGNORECASE,
)
_DENIES_ALONE = re.compile(
    r"\W*(?:no|none|nein|keine[rs]?|non|没有|沒有|いいえ)\b\W*(?:\w+\W+){0,3}\Z|\W*(?:没有|沒有)\W", re.IGNORECASE
)
#: Negations that assert.
_ASSERTING = re.compile(
    r"\b(?:no|without (?:a |any )?) ?(?:doubt|question)\b|\bundoubtedly\b|\bnot (?:only|just|merely)\b|\bnothing (?:but|other than)\b|"
    r"\b(?:none|no) other than\b|\bnot (?:im|un|in)\w+|\bno (?:less|fewer|more) than\b|\bnot (?:\w+ )?but\b|\bcannot be (?:missed|denied)\b|"
    r"\bkeine? (?:zweifel|frage)\b|\bnicht (?:nur|bloß)\b|\bnichts (?:als|anderes als)\b|\bsans (?:aucun )?doute\b|\b(?:pas|non) seulement\b|"
    r"\brien d['’]autre qu\w*|\bsin (?:ninguna )?duda\b|\bno (?:solo|sólo|solamente)\b|\bnada más que\b|"
    r"(?:毫无|毫無|没有|沒有)(?:任何)?(?:疑问|疑問)|无疑|無疑|不仅|不僅|不但|不只|不外乎|不错|没错|間違い(?:なく|ない|ありません)|違いない|違いありません|だけで(?:なく|はなく)",
    re.IGNORECASE,
)
#: Where a sentence goes on to say the contrary.
_TURN = re.compile(
    r"[;；]|\b(?:but|though|although|however|instead|aber|jedoch|allerdings|sondern|stattdessen|mais|cependant|plutôt|pero|sino|"
    r"sin embargo|maar|но)\b|但是?|不过|不過|而是|が、|けれど|けど",
    re.IGNORECASE,
)
_PART = re.compile(r"[,，、:：\u2013\u2014()（）]+")
# A source that shows something, and what was found.
_SHOWS = re.compile(
    r"\b(?:photo(?:graph)?s?|images?|pictures?|captions?|collection|evidence|sources?)\s+(?:\[\d+\]\s*)*(?:clearly |also |only |just |mainly )?"
    r"(?:shows?|depicts?|contains?|features?|says?|has|have|includes?)\s+(?!no\b|none|nothing|neither|nobody|not\b)"
    r"|\b(?:i|we) (?:can |could )?(?:clearly )?(?:see|find|found)\s+(?!no\b|none|nothing|neither|nobody|not\b)"
    r"|\b(?:foto|bild(?:er)?|aufnahme|sammlung)\s+(?:zeigt|zeigen|enthält)\s+(?!kein|nicht)"
    r"|\b(?:photo|image|collection)s?\s+(?:montre|montrent|contient|contiennent)\s+(?!pas|aucun|rien)"
    r"|\b(?:foto|imagen|colección|im[aá]genes|fotos)\s+(?:muestra|muestran|contiene|contienen)\s+(?!ning)"
    r"|(?:照片|图片|图|圖)(?:里|中|上|裡)?(?:显示|顯示|展示|是|有|拍的是)(?![没沒不]|显示屏)",
    re.IGNORECASE,
)
# What has its own subject and verb, at the beginning of a part of a sentence.
_STATES = re.compile(
    r"\s*(?:(?:so|and|then|rather|actually)\s+)?(?:it|he|she|they|this|that|these|there|its \w+|the (?!question|answer)[\w-]+(?: [\w-]+)?)"
    r"(?:['’]s|\s+(?:is|are|was|were|has|have|wears?|shows?|looks?|seems?|appears?|stands?|sits?))\s+\w"
    r"|\s*(?:(?:und|also|dann)\s+)?(?:es|er|sie|das|dies|der \w+|die \w+)\s+(?:\w+\s+)?(?:ist|sind|war|waren|hat|haben|trägt|zeigt|heißt)\s+\w"
    r"|\s*(?:(?:et|donc)\s+)?(?:c['’]est|ce sont|(?:il|elle|le \w+|la \w+) (?:est|a|porte)|(?:ils|elles|les \w+) (?:sont|ont|portent)|il y a|on voit)\s+\w"
    r"|\s*(?:(?:y|e)\s+)?(?:(?:el|la|los|las) \w+ )?(?:es|está|son|están|hay|tiene|lleva|se ve|se ven)\s+\w"
    r"|.*(?:です|ます|でした|ました|である|ている)\s*\Z",
    re.IGNORECASE,
)
_ZH_STATES = re.compile(r"(?:是|有|为|為|穿|戴|叫|呈)(?!谁|誰|什|哪|几|幾|否|多少)")
_ASKS = re.compile(r"谁|誰|什么|甚麼|哪|几|幾|多少|是否|何|どこ|いつ|だれ|[?？]")
_END = " \t\n.!?。！？…[]0123456789"


def clauses(text: str) -> list[str]:
    """A sentence where it turns: "I cannot tell" and "it is brown" of "I cannot tell, but it is brown"."""
    return [clause for clause in _TURN.split(text) if clause.strip()]


def affirms(clause: str) -> bool:
    """Whether a clause says what is to be seen, beside what it denies."""
    plain = _ASSERTING.sub(" ", clause)
    if plain != clause and not _DENIES.search(plain):
        return True
    if any(not _DENIES.search(plain[: match.start()]) for match in _SHOWS.finditer(plain)):
        return True
    parts = [part.strip(_END) for part in _PART.split(plain)]
    stating = (part for part in parts if _STATES.match(part) or _ZH_STATES.search(part))
    return any(not _DENIES.search(part) and not _ASKS.search(part) for part in stating)


def says_nothing(text: str) -> bool:
    """Whether a sentence says that the collection has nothing of a kind, or that something cannot be told."""
    told = clauses(text)
    denied = [clause for clause in told if _is_denial(clause)]
    return bool(denied) and all(clause in denied or not Claim(clause).content for clause in told)


def _is_denial(clause: str) -> bool:
    if affirms(clause):
        return False
    plain = _ASSERTING.sub(" ", clause)
    return bool(_DENIES.search(plain) and _COLLECTION.search(plain)) or bool(_DENIES_ALONE.match(plain))
