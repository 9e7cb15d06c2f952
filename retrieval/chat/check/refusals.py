"""Replies that say themselves that there is no answer, in the languages that models are asked in."""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re

from retrieval.chat.check.claims import sentences, strip_citations
from retrieval.chat.check.denials import affirms, clauses
from retrieval.chat.wording import REFUSALS

# Each language has three forms: the sources do not say it, there is not enough to say it by, and "I" cannot. Saying
# that a photo shows no dog is an answer: so a source that "has" nothing needs a word such as information or answer.
# What a photo that does not show it leaves unanswered; one that shows no dog answers whether there is one.
_KNOWLEDGE = r"\W*\Z|\W+(?:\w+\W+){0,2}?(?:who|whom|whose|what|when|where|which|how|why|whether|if|this|that|it|information|answers?|details?|evidence|years?|dates?|times?|names?|places?|locations?|photographers?|authors?)\b"
_ZH_KNOWLEDGE = r"(?=[^，。；]{0,10}(?:信息|资讯|資訊|资料|資料|答案|内容|內容|细节|細節|谁|誰|什么|甚麼|哪|(?<!任)何|几|幾|多少|是否|怎|时间|時間|日期|年份|地点|地點|位置|名字|姓名|作者|原因)|(?:出来|出|了|过)?(?:[，。；]|\Z))"
_JA_KNOWLEDGE = (
    r"(?:情報|資料|記述|記載|答え|回答|手がかり|誰|だれ|何|いつ|どこ|なぜ|名前|日付|年|場所|について)[^。、]{0,12}"
)
_FR_KNOWLEDGE = r"\b(?=\W*\Z|.{0,20}\b(?:informations?|réponses?|détails?|éléments?|indications?|données|qui|quoi|quand|où|comment|pourquoi|si|date|année|nom|lieu)\b)"
_ES_KNOWLEDGE = r"\b(?=\W*\Z|.{0,20}\b(?:informaci[oó]n|respuesta|detalles?|datos?|qui[eé]n|qu[eé]|cu[aá]ndo|d[oó]nde|c[oó]mo|por qu[eé]|si|fecha|año|nombre|lugar)\b)"
_LACKS = r" (?:do(?:es)? not|doesn't|don't|cannot|can't) (?:\w+ )?"
_ENGLISH = (
    r"\bnothing in the (?:collection|evidence)|\b(?:the (?:provided |given )?(?:evidence|sources?|collection|captions?|"
    r"information)"
    + _LACKS
    + r"(?:contain|show|include)|the (?:provided |given )?(?:evidence|sources?|collection|captions?|"
    r"photos?|images?|information)" + _LACKS + r"(?:answer|say|mention|provide|specify|tell|state|indicate))\b"
    r"|\bthe (?:provided |given )?(?:photos?|images?)"
    + _LACKS
    + r"(?:contain|show|include)\b(?="
    + _KNOWLEDGE
    + r")|\b(?:not|no) (?:enough|sufficient) (?:evidence|information)\b|"
    r"\bi (?:do not|don't|cannot|can't|could not|couldn't) (?:know|answer|tell|determine|find)\b|\bcannot be (?:answered|determined)\b"
)
_CHINESE = (
    r"(?:集合|资料|資料|来源|來源|证据|證據|信息|资讯|資訊|描述|内容|內容|文字)[^，。；]{0,12}"
    r"(?:没有|沒有|并未|並未|未|无法|無法|不能|不足以)[^，。；]{0,8}(?:显示(?![屏器])|顯示(?![屏器])|包含)"
    r"|(?:照片|图片|圖片|图像|图中|圖中)[^，。；]{0,12}(?:没有|沒有|并未|並未|未|无法|無法|不能)[^，。；]{0,4}(?:显示(?![屏器])|顯示(?![屏器])|包含)"
    + _ZH_KNOWLEDGE
    + r"|(?:集合|资料|資料|来源|來源|证据|證據|照片|图片|圖片|图像|图中|圖中|信息|资讯|資訊|描述|内容|內容|文字)[^，。；]{0,12}"
    r"(?:没有|沒有|并未|並未|未|无法|無法|不能|不足以)[^，。；]{0,8}(?:回答|提到|提及|说明|說明|给出|給出|确定|確定|判断|判斷)"
    r"|(?:没有|沒有|缺乏|缺少|未有)[^，。；]{0,12}(?:信息|资料|資料|资讯|資訊|证据|證據|答案)|(?:信息|资料|資料|证据|證據)不足"
    r"|没有[^，。；]{0,8}(?:能|可以|可)(?:够)?回答|沒有[^，。；]{0,8}(?:能|可以|可)(?:夠)?回答"
    r"|不知道|(?:无法|無法|不能|没法|沒法)(?:回答|确定|確定|判断|判斷|得知|看出|找到|知道|确认|確認)|(?:找不到|没有找到|沒有找到|未找到|未能找到)"
)
_JAPANESE = (
    r"(?:わか|分か|判ら|わから)(?:りません|りかね|らない|ません)|(?:答え|回答)(?:られ|でき|することができ|することはでき)(?:ません|ない|かね)|お答えでき(?:ません|ない|かね)"
    r"|(?:判断|特定|確認|判別|断定)(?:でき|することができ|することはでき)(?:ません|ない|かね)|見つかり(?:ません|ませんでした)|見つけられ(?:ません|なかった)"
    r"|(?:情報|資料|記述|記載|手がかり|証拠|答え)[^。、]{0,10}(?:ありません|ない|不足|足りません|見当たりません)|不明です"
    r"|(?:書かれて|記載されて|述べられて)(?:は)?い(?:ません|ない)|"
    + _JA_KNOWLEDGE
    + r"(?:含まれて|示されて)(?:は)?い(?:ません|ない)|(?:答える|答えられる|回答する|回答できる)[^。、]{0,10}(?:ありません|ない)"
)
_GERMAN = (
    r"\bnichts\b.{0,60}\b(?:beantwort\w*|gefunden|finden)\b|\b(?:beantwort\w+|finde|fand)\b.{0,40}\bnichts\b"
    r"|\b(?:quellen?|belege?|sammlung|fotos?|bild(?:er|ern)?|informationen|angaben|beschreibung(?:en)?|bildunterschrift(?:en)?|texte?n?)\b.{0,40}\b(?:nicht|keine?n?|nichts)\b.{0,40}"
    r"\b(?:beantwort\w*|erwähn\w*|hervor\w*|angegeben|genannt|sagen|aussag\w*|auskunft|angaben?|informationen?|hinweise?|antwort\w*|verraten|entnehmen)\b"
    r"|\b(?:keine|nicht genug|nicht genügend|nicht ausreichend\w*|zu wenige?|ungenügende) (?:\w+ )?(?:informationen|angaben|hinweise|antwort)\b"
    r"|\b(?:wird|werden|ist|sind)\b.{0,30}\bnicht (?:erwähnt|angegeben|genannt|beantwortet)\b|\bgeht\b.{0,60}\bnicht hervor\b"
    r"|\bich weiß (?:es |das |dies )?(?:leider )?nicht\b|\b(?:kann|können|konnte|lässt|lassen)\b.{0,60}\bnicht\b.{0,20}\b(?:beantwort\w*|sagen|feststellen|bestimmen|ermitteln|beurteilen|finden)\b"
)
_FRENCH = (
    r"\brien (?:dans|ne)\b.{0,40}\b(?:collection|répond\w*|sources?|permet\w*)\b|\baucune? (?:élément|information|source|photo|image|document|donnée|réponse|indication)s?\b"
    r".{0,60}\b(?:répond\w*|permet\w*|mentionn\w*|indiqu\w*|précis\w*|trouvée?s?|disponible)\b"
    r"|\b(?:collection|photos?|images?|sources?|preuves?|légendes?|informations?|documents?|éléments?)\b.{0,40}\bne\b.{0,12}\b(?:permet\w*|répond\w*|mentionn\w*|indiqu\w*|dit|disent|précis\w*|fourni\w*)\b"
    r"|\b(?:collection|photos?|images?|sources?|légendes?|documents?)\b.{0,40}\bne\b.{0,12}\b(?:contien\w*|montr\w*)"
    + _FR_KNOWLEDGE
    + r"|\bcollection ne contien\w*"
    r"|\bn['’](?:y a pas|y a aucune?|ai pas|est pas)\b.{0,30}\b(?:informations?|réponse|mentionnée?|précisée?|indiquée?)\b|\bpas assez d['’](?:informations?|éléments?)"
    r"|\bje ne (?:sais|le sais|peux|trouve|vois) (?:pas|rien|aucune?)\b(?:\W*\Z|.{0,20}\b(?:répondre|dire|déterminer|savoir|si|qui|où|quand|combien|réponse|information\w*)\b)|\bimpossible (?:de|d['’]) ?(?:répondre|dire|déterminer|savoir|y répondre)"
)
_SPANISH = (
    r"\b(?:nada|ninguna? (?:fuente|foto|imagen|elemento|dato|texto|documento))\b.{0,60}\b(?:responde\w*|contesta\w*|menciona\w*|indica\w*)\b"
    r"|\b(?:colección|fotos?|im[aá]gen(?:es)?|fuentes?|pruebas?|evidencias?|descripci[oó]n(?:es)?|información|datos|textos?)\b.{0,40}\bno\b.{0,12}\b(?:responde\w*|contesta\w*|menciona\w*|indica\w*|dicen?|especifica\w*|permiten?)\b"
    r"|\b(?:colección|fotos?|im[aá]gen(?:es)?|fuentes?|descripci[oó]n(?:es)?|textos?)\b.{0,40}\bno\b.{0,12}\b(?:contienen?|muestran?)"
    + _ES_KNOWLEDGE
    + r"|\bcolección no contiene"
    r"|\bno (?:lo )?s[eé]\b|\bno (?:puedo|podemos|se puede|es posible|logro)\b.{0,20}\b(?:responder\w*|contestar\w*|determinar\w*|decir\w*|saber\w*|encontrar\w*)\b"
    r"|\bno (?:hay|tengo|encuentro|encontré|existe|se encontr\w+)\b.{0,20}\b(?:informaci[oó]n|respuesta|datos)\b"
)
_OTHERS = (
    # Italian, Portuguese, Dutch
    r"\bnon (?:lo so|posso (?:rispondere|dire|determinare)|è possibile (?:rispondere|dire|determinare|stabilire))|\b(?:niente|nulla)\b.{0,40}\brispond\w*|\bnon ci sono (?:\w+ )?informazioni"
    r"|\bnão (?:sei|posso (?:responder|dizer|determinar)|é possível (?:responder|dizer|determinar|saber)|há (?:\w+ )?informaç\w+)|\bnada\b.{0,40}\bresponde\b"
    r"|\bik weet het niet|\bniets in de (?:collectie|verzameling)|\b(?:kan|kunnen)\b.{0,30}\bniet\b.{0,20}\b(?:beantwoord\w*|zeggen|bepalen|vaststellen)|\bgeen informatie\b"
    # Russian, Korean
    r"|\bне (?:знаю|могу (?:ответить|сказать|определить))|\bнет (?:\w+ )?(?:информации|ответа|данных)|\bничего\b.{0,40}\bотвеча\w*|\bнельзя (?:ответить|определить|сказать)"
    r"|(?:알 수|답할 수|대답할 수|확인할 수|판단할 수) 없|모르겠|(?:정보|내용|답)[이가은는]? (?:없|부족)"
)
_DECLINES = re.compile("|".join((_ENGLISH, _CHINESE, _JAPANESE, _GERMAN, _FRENCH, _SPANISH, _OTHERS)), re.IGNORECASE)
# What may stand beside it without being an answer: a question to the asker, an offer, an apology.
_OFFERS = re.compile(
    r"[?？]\W*\Z|\b(?:let me know|feel free|happy to help|lassen sie (?:es )?mich|gerne? (?:helfe|weiter)|n['’]hésitez|no dud[ae]s?)\b|请告诉我|欢迎|お知らせください|お気軽に"
    r"|\A\W*(?:(?:i['’]?m|i am)? ?(?:very |so )?sorry|unfortunately|es tut mir leid|tut mir leid|leider|(?:je suis )?désolée?|malheureusement|lo siento|lamentablemente|抱歉|很抱歉|对不起|對不起|"
    r"不好意思|申し訳(?:ありません|ございません)|すみません|残念です|残念ながら)\W*\Z",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")
_WRAPPED = re.compile(r"(?<=[^\s.!?:])\n(?=[a-zß-ÿа-я])")


def refuses(text: str) -> bool:
    """Whether a reply says itself that there is no answer: it is empty, one of our own refusals, or declines throughout.

    It declines throughout when each of its sentences, and what they turn to with "but", says that sources or writer cannot answer, but for offers and
    questions to the asker beside them. English, Chinese, Japanese, German, French and Spanish; and plain forms of
    Italian, Portuguese, Dutch, Russian and Korean.
    """
    plain = strip_citations(text).replace("’", "'").strip()
    if not plain:
        return True
    # Lines and items of a list end sentences too, but for a line that is only too long.
    told = [_SPACE.sub(" ", part) for part in sentences(_WRAPPED.sub(" ", plain))]
    parts = [clause for sentence in told for clause in clauses(sentence)]
    declining = [part for part in parts if _declines(part)]
    return bool(declining) and all(part in declining or is_aside(part) for part in parts)


def is_aside(text: str) -> bool:
    """Whether a sentence is what may stand beside a refusal without being an answer."""
    return bool(_OFFERS.search(text))


def _declines(part: str) -> bool:
    if any(said in part.lower() for said in REFUSALS):
        return True
    return bool(_DECLINES.search(part)) and not affirms(part)
