"""Replies that say themselves that there is no answer, told from answers that deny something, in several languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.chat import ChatOptions, GroundedChat
from retrieval.chat.check.refusals import refuses
from tests.support.chat_models import Scripted, collection

REFUSED = {
    "en": [
        "Nothing in the collection answers this.",
        "I'm sorry, but I can't tell who took the photo [1].",
        "I couldn’t find that. Would you like me to look for something else?",
        "The captions do not mention a year. Let me know if you need anything else.",
        "The photos do not show who took them.",
        "I'm sorry, but I cannot tell.",
        "The image doesn't contain enough information.",
        "The collection does not contain any photos of orchestras.",
        "I cannot tell.\n\nNothing in the collection\nanswers this.",
    ],
    "zh": [
        "这个集合里没有能回答这个问题的内容。",
        "抱歉，我无法确定照片是谁拍的[1]。",
        "照片中没有提到年份。还想了解什么吗？",
        "我不知道。",
        "没有找到相关的信息。",
        "提供的资料不足以回答这个问题。",
        "照片没有显示拍摄者的信息。",
        "图片中没有显示。",
    ],
    "de": [
        "Nichts in der Sammlung beantwortet das.",
        "Das weiß ich leider nicht: Die Quellen enthalten dazu keine Angaben.",
        "Ich kann die Frage anhand der Fotos nicht beantworten [1].",
        "Wer das Foto gemacht hat, wird nicht erwähnt. Möchten Sie etwas anderes wissen?",
        "Das lässt sich aus den Bildern nicht feststellen.",
    ],
    "ja": [
        "コレクションにはこの質問に答えられるものはありません。",
        "写真からは誰が撮影したかわかりません[1]。",
        "申し訳ありませんが、お答えできません。",
        "年については記載されていません。ほかに知りたいことはありますか？",
        "その情報はありません。",
    ],
    "fr": [
        "Rien dans la collection ne répond à cette question.",
        "Je ne sais pas.",
        "Les photos ne permettent pas de dire qui l'a prise [1].",
        "Désolé, il n’y a pas d'information à ce sujet.",
        "Aucune source ne mentionne l'année.",
        "Les photos ne montrent pas qui les a prises.",
        "La collection ne contient pas de photo d'orchestre.",
    ],
    "es": [
        "Nada en la colección responde a esto.",
        "Lo siento, no puedo responder a esa pregunta.",
        "Las fotos no indican el año [1].",
        "No hay información sobre eso.",
        "No lo sé.",
        "La foto no muestra quién la tomó.",
    ],
    "others": ["Non lo so.", "Não sei.", "Ik weet het niet.", "Я не могу ответить на этот вопрос.", "알 수 없습니다."],
}
ANSWERED = [
    "The dog is brown [1].",
    "No, none of them wears a hat [1].",
    "There are no people in the photo [1].",
    "I can't tell the year. The dog is brown [1].",
    "Would you like to see the dog?",
    "The image does not show any people [1].",
    "No, the photo does not contain a dog [1].",
    "- The dog is brown [1]\n- The year cannot be determined",
    "The dog is brown [1]. Nothing in the collection answers this for the cat.",
    "不，照片里没有人[1]。",
    "没有，狗没有戴帽子[1]。",
    "我无法确定年份。狗是棕色的[1]。",
    "照片上没有显示屏，只有一台电视。",
    "いいえ、写真に人はいません[1]。",
    "帽子はかぶっていません[1]。",
    "犬は茶色です。年はわかりません。",
    "Nein, auf dem Bild sind keine Menschen zu sehen [1].",
    "Der Hund trägt keinen Hut [1].",
    "Der Hund ist braun. Das Jahr wird nicht erwähnt.",
    "Nichts liegt auf dem Tisch [1].",
    "Non, il n'y a personne sur la photo [1].",
    "Le chien ne porte pas de chapeau [1].",
    "No, en la foto no hay personas [1].",
    "照片中没有显示任何狗[1]。",
    "图片里没有包含大象。",
    "La photo ne contient pas de chien [1].",
    "La photo ne montre pas de chien.",
    "La foto no contiene perros [1].",
    "La imagen no muestra ningún perro.",
    "犬は含まれていません[1]。",
    "I can't tell the year, but the dog is brown.",
    "I cannot tell the year, it is a brown dog.",
    "无法确定年份，但狗是棕色的。",
    "El perro no lleva sombrero [1].",
]


@pytest.mark.parametrize("text", [text for texts in REFUSED.values() for text in texts])
def test_a_refusal_is_known_in_its_language(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_an_answer_that_denies_something_is_no_refusal(text: str) -> None:
    assert not refuses(text)


@pytest.mark.parametrize("text", ["", " \n", "[1]", "I don't know [1]."])
def test_what_says_nothing_refuses(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("language", ["zh", "de", "ja", "fr", "es"])
def test_a_capable_model_s_refusal_is_told_as_one(tmp_path: Path, language: str) -> None:
    said = next(text for text in REFUSED[language] if "[" not in text)
    answer = GroundedChat(collection(tmp_path), Scripted(replies=[said]), ChatOptions(gate=None)).ask("a red dog")
    assert (answer.text, answer.refused, answer.sources) == (said, True, ())
