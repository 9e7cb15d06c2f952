"""Answer keys in texts of several scripts: what is said, what is denied, which language, and what only repeats."""

from __future__ import annotations

import pytest

from benchmarks.chat.matching import normalised, parts_said, repeats, says, speaks


@pytest.mark.parametrize(
    ("text", "term", "said"),
    [
        ("It is a Cat [1].", "cat", True),
        ("A category of cattle.", "cat", False),
        ("The union  jack, on an umbrella", "Union Jack", True),
        ("a jack and a union", "Union Jack", False),
        ("Written in C++.", "C++", True),
        ("Bowls of oranges", "orange*", True),
        ("Bowls of oranges", "orange", False),
        ("Ein Teddybär liegt da.", "*bär*", True),
        ("Ein Bärtiger liegt da.", "bär", False),
        ("There are ２ of them [3]", "2", True),
        ("There are 12 of them", "2", False),
        ("It cites only [2].", "2", False),
        ("有2只猫", "2", True),
        ("一只泰迪熊。", "泰迪熊", True),
        ("ﾃﾃﾞｨﾍﾞｱです", "テディベア", True),
        # What is denied is not said, in its own clause.
        ("It is not red.", "red", False),
        ("There is no very big dog", "dog", False),
        ("It's red, not blue.", "red", True),
        ("It's red, not blue.", "blue", False),
        ("No dogs but two cats", "cats", True),
        ("Nicht rot, sondern blau", "blau", True),
        ("Da ist kein Hund.", "hund", False),
        ("没有狗。", "狗", False),
        ("不是狗，是猫。", "猫", True),
        ("犬ではありません。", "犬", False),
        ("犬がいます。", "犬", True),
        ("It is not red. The bus is red.", "red", True),
        ("A bathroom with no toilets and a red bucket.", "red", True),
        ("Weder rot noch blau", "rot", False),
    ],
)
def test_a_term_in_a_text(text: str, term: str, said: bool) -> None:
    assert says(normalised(text), term) is said


def test_parts_are_each_said_by_one_of_their_terms() -> None:
    parts = [["horse", "pony"], ["goat*"], ["grass"]]
    assert parts_said(normalised("A pony and two goats."), parts) == 2
    assert parts_said(normalised("Horses."), parts) == 0


@pytest.mark.parametrize(
    ("text", "language", "fits"),
    [
        ("A dog runs along the beach.", "en", True),
        ("Ein Hund läuft auf dem Strand.", "en", False),
        ("The dog is on the beach.", "de", False),
        ("Rot.", "de", True),
        ("Ein Hund ist auf dem Sofa.", "de", True),
        ("一只狗。", "en", False),
        ("一只狗[1]。", "zh", True),
        ("A dog.", "zh", False),
        ("The dog on the sofa is 狗.", "zh", False),
        ("Gladys 和 Detroit。", "zh", True),
        ("Gladys, Detroit", "zh", True),
        ("犬です。", "zh", False),
        ("犬です。", "ja", True),
        ("三頭", "ja", True),
        ("It is blue", "ja", False),
        ("Собака.", "ja", False),
    ],
)
def test_which_language_an_answer_is_in(text: str, language: str, fits: bool) -> None:
    assert speaks(text, language) is fits


@pytest.mark.parametrize(
    ("text", "question", "same"),
    [
        ("What does the dog on the beach do [1].", "What does the dog on the beach do?", True),
        ("the dog on the beach", "What does the dog on the beach do?", True),
        ("The dog on the beach runs [1].", "What does the dog on the beach do?", False),
        ("The dog.", "What does the dog on the beach do?", False),
        ("狗在海滩上做什么[1]", "狗在海滩上做什么？", True),
        ("狗在海滩上奔跑[1]", "狗在海滩上做什么？", False),
    ],
)
def test_an_answer_that_repeats_the_question(text: str, question: str, same: bool) -> None:
    assert repeats(text, question) is same
