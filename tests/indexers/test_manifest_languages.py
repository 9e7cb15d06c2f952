"""Manifests as people write them in their own language: headers, full-width letters, and older encodings."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from backends.base import Record
from backends.exact.backend import ExactBackend
from backends.filters import check_field_name
from indexers import IndexReport, index
from indexers.columns import CAPTION_COLUMNS, FILE_COLUMNS, PLAIN_FILE_COLUMNS, TEXT_COLUMNS, TITLE_COLUMNS, folded
from indexers.fields import field_name
from indexers.legacy import likely_encodings
from tests.support.counting_encoder import CountingEncoder

#: By language: a table's header, and the caption of its row.
TABLES = {
    "zh": ("文件名,描述,相机", "一只黑白相间的猫坐在窗台上"),
    "zh, other words": ("图片,说明,相机", "桌上放着一杯热咖啡"),
    "zh, title": ("路径,标题,相机", "西湖风景"),
    "zh-TW": ("檔名,說明,相機", "一隻貓坐在窗台上"),
    "zh-TW, other words": ("圖片,標題,相機", "桌上放著一杯熱咖啡"),
    "ja": ("ファイル名,説明,カメラ", "窓辺に座っている黒い猫"),
    "ja, other words": ("画像,キャプション,カメラ", "東京タワーの夜景"),
    "ko": ("파일명,설명,카메라", "창가에 앉아 있는 고양이"),
    "de": ("Dateiname,Beschreibung,Kamera", "Eine Katze in der Größe eines Stuhls"),
    "fr": ("Nom de fichier,Légende,appareil", "un chat assis à la fenêtre"),
    "es": ("Archivo,Descripción,cámara", "una niña con un gato"),
    "ru": ("Файл,Описание,камера", "кошка сидит на окне"),
    "en": ("Image path,description,camera", "a cat at a window"),
}
#: What wrote tables before UTF-8 was usual.
ENCODINGS = {
    "zh": "GB18030",
    "zh, other words": "GB18030",
    "zh, title": "GB18030",
    "zh-TW": "BIG5",
    "zh-TW, other words": "BIG5",
    "ja": "SHIFT_JIS",
    "ja, other words": "EUC-JP",
    "ko": "EUC-KR",
    "de": "CP1252",
    "fr": "CP1252",
    "es": "CP1252",
    "ru": "CP1251",
}


def indexed(folder: Path, name: str, content: str | bytes) -> tuple[IndexReport, list[Record]]:
    """What becomes of a manifest beside one picture, ``a.png``: the report, and its records, the picture's first."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (12, 8), "red").save(folder / "a.png")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    backend = ExactBackend()
    report = index(folder, backend, CountingEncoder(), "c")
    found = [record for page in backend.scan("c") for record in page.records]
    return report, sorted(found, key=lambda record: (record.modality, record.text or ""))


def table(language: str) -> str:
    header, caption = TABLES[language]
    return f"{header}\na.png,{caption},Leica\n"


@pytest.mark.parametrize("language", TABLES)
def test_headers_of_each_language_name_files_and_captions(tmp_path: Path, language: str) -> None:
    report, (image, caption) = indexed(tmp_path, "captions.csv", table(language))
    assert report.indexed == 1
    assert image.text == caption.text == TABLES[language][1]
    assert caption.metadata["image"] == image.id


@pytest.mark.parametrize("language", ["zh", "ja", "ru"])
def test_lines_of_json_as_well(tmp_path: Path, language: str) -> None:
    header, caption = TABLES[language]
    row = dict(zip(header.split(","), ("a.png", [caption, "two"], 7), strict=True))
    report, (image, *captions) = indexed(tmp_path, "captions.jsonl", json.dumps(row, ensure_ascii=False))
    assert report.indexed == 1
    assert image.text == f"{caption}\ntwo"
    assert {record.text for record in captions} == {caption, "two"}


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffｆｉｌｅ，ｃａｐｔｉｏｎ\na.png，一只猫\n",
        "文件名：,描述：\na.png,一只猫\n",
        " 文件 名 ;描述\na.png;一只猫\n",
        "\ufeff图片\t说明\r\na.png\t一只猫\r\n",
        "文件名；描述\na.png；一只猫\n",
        "FILE_NAME,CAPTIONS\na.png,一只猫\n",
    ],
)
def test_names_count_however_they_are_typed(tmp_path: Path, content: str) -> None:
    report, (image, caption) = indexed(tmp_path, "captions.csv", content)
    assert report.quarantined == []
    assert image.text == caption.text == "一只猫"
    assert image.metadata.keys() == {"path", "source", "width", "height", "format", "bytes"}


def test_utf16_as_spreadsheets_write_it(tmp_path: Path) -> None:
    _, (image, _) = indexed(tmp_path, "captions.tsv", table("zh").replace(",", "\t").encode("utf-16"))
    assert image.text == TABLES["zh"][1]


def test_a_comma_in_a_chinese_caption_divides_nothing(tmp_path: Path) -> None:
    _, (image, _) = indexed(tmp_path, "captions.csv", "文件名,描述\na.png,一只猫，坐在窗台上；看雨\n")
    assert image.text == "一只猫，坐在窗台上；看雨"


def test_several_columns_add_up_and_a_title_counts_where_nothing_else_does(tmp_path: Path) -> None:
    _, (image, *captions) = indexed(tmp_path, "captions.csv", "文件名,说明,描述,title\na.png,西湖,湖边的塔,Lake\n")
    assert {record.text for record in captions} == {"西湖", "湖边的塔"}
    assert image.metadata["title"] == "Lake"
    _, (image, caption) = indexed(tmp_path, "captions.csv", "file,title,year\na.png,Lake,1990\n")
    assert caption.text == "Lake"
    assert (image.metadata["title"], image.metadata["year"]) == ("Lake", 1990)


@pytest.mark.parametrize("title", ["标题", "標題", "タイトル", "題名", "제목", "Titel", "titre", "Título", "Название"])
def test_titles_of_each_language_are_captions_only_where_there_is_no_other(tmp_path: Path, title: str) -> None:
    rows = [
        {"file": "a.png", title: "Lake", "caption": "a lake"},
        {"file": "a.png", title: 1990},
        {title: "no more than a title", "caption": "a lone text"},
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    report, (image, *texts) = indexed(tmp_path, "captions.jsonl", lines)
    assert report.quarantined == []
    assert {record.text for record in texts} == {"a lake", "a lone text"}
    assert image.metadata[field_name(title)] == "Lake"
    (tmp_path / "second").mkdir()
    report, (image, *texts) = indexed(tmp_path / "second", "captions.csv", f"file,{title}\na.png,Lake\nb.png,\n")
    assert [record.text for record in texts] == ["Lake"]
    assert image.metadata[field_name(title)] == "Lake"


@pytest.mark.parametrize("column", ["file_path", "image path", "image_name", "路径", "图片", "Bild", "Foto", "ruta"])
@pytest.mark.parametrize("value", ["docs/guide.md", "nature", "https://example.org/a"])
def test_beside_a_text_only_a_picture_is_a_file(tmp_path: Path, column: str, value: str) -> None:
    rows = [{column: value, "text": "a passage"}, {column: "a.png", "text": "a caption"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    report, (image, *texts) = indexed(tmp_path, "captions.jsonl", lines)
    assert report.quarantined == []
    by_text = {record.text: record.metadata for record in texts}
    assert by_text["a passage"][field_name(column)] == value
    assert by_text["a caption"]["image"] == image.id
    # The same run again finds them where they were: nothing is there to be pruned.
    backend = ExactBackend()
    index(tmp_path, backend, CountingEncoder(), "c")
    assert index(tmp_path, backend, CountingEncoder(), "c", prune=True).pruned == 0


def test_what_is_no_string_is_no_file_beside_a_text(tmp_path: Path) -> None:
    _, (_, text) = indexed(tmp_path, "captions.jsonl", '{"ruta": 17, "text": "a passage"}\n')
    assert (text.text, text.metadata["ruta"]) == ("a passage", 17)


def test_a_plain_name_is_a_file_whatever_stands_beside_it(tmp_path: Path) -> None:
    report, _ = indexed(tmp_path, "captions.jsonl", '{"file": "guide.md", "text": "a passage"}\n')
    (told,) = report.quarantined
    assert told.path == "captions.jsonl:1"


def test_no_column_is_called_both() -> None:
    assert not FILE_COLUMNS.keys() & (CAPTION_COLUMNS.keys() | TITLE_COLUMNS.keys())
    assert not CAPTION_COLUMNS.keys() & TITLE_COLUMNS.keys()
    assert FILE_COLUMNS.keys() >= PLAIN_FILE_COLUMNS
    assert CAPTION_COLUMNS.keys() >= TEXT_COLUMNS
    assert all(folded(name) == name for name in FILE_COLUMNS.keys() | CAPTION_COLUMNS.keys())


@pytest.mark.parametrize("language", ENCODINGS)
def test_an_older_encoding_is_guessed_and_told(tmp_path: Path, language: str) -> None:
    _, wanted = indexed(tmp_path / "unicode", "captions.csv", table(language))
    report, records = indexed(tmp_path / "older", "captions.csv", table(language).encode(ENCODINGS[language]))
    assert [record.text for record in records] == [record.text for record in wanted]
    assert report.quarantined == []
    (told,) = report.notes
    assert (told.path, told.reason) == (
        "captions.csv",
        f"read as {ENCODINGS[language]}, which was guessed: --encoding names another",
    )


def test_what_is_no_text_gets_no_advice() -> None:
    assert likely_encodings(bytes(range(128, 256)) * 20) == []
    assert likely_encodings(b"") == []


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("Ça a été déjà vu à l'école", "CP1252"),
        ("À Noël, l'île est à côté", "CP1252"),
        ("Året går, Åse står på Ørsta", "CP1252"),
        ("Ángel y Íñigo, ¿dónde están?", "CP1252"),
        ("Мы с Wi-Fi у IMG_0001.jpg, Ещё раз", "CP1251"),
        ("ЁЛКА", "CP1251"),
    ],
)
def test_latin_words_with_accents_are_not_taken_for_russian(words: str, encoding: str) -> None:
    assert likely_encodings(words.encode(encoding))[0] == encoding


def test_a_sample_may_end_within_a_character() -> None:
    chinese = ("一只黑白相间的猫坐在窗台上" * 4000).encode("GB18030")
    assert likely_encodings(b"x" + chinese)[0] == "GB18030"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Date taken", "date_taken"),
        ("Äußere Größe", "auere_groe"),
        ("2020", "_2020"),
        ("size (\u00b5m)", "size_m"),
        ("R \u2126", "r"),
        ("ＩＳＯ：", "iso"),
        ("___", ""),
        ("😀", ""),
    ],
)
def test_latin_names_become_ascii(name: str, field: str) -> None:
    assert field_name(name) == field


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("作者", "作者"),
        ("拍摄 地点：", "拍摄_地点"),
        ("日期（年）", "日期_年"),
        ("２０２４年", "_2024年"),
        ("相机ISO", "相机iso"),
        ("éa相机", "ea相机"),
        ("カメラ", "カメラ"),
        ("Автор й", "автор_й"),
        ("Ώρα \u03bc", "ώρα_μ"),
        ("कैमरा", "कैमरा"),
        ("كاميرا", "كاميرا"),
        ("카메라", "카메라"),
    ],
)
def test_names_of_other_scripts_keep_their_letters(name: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether engines take such a name, is not this function's to say.
    monkeypatch.setattr("indexers.fields.check_field_name", lambda name: name)
    assert field_name(name) == field
    for form in ("NFC", "NFD"):
        assert field_name(unicodedata.normalize(form, name)) == field


def test_other_columns_are_metadata_under_their_own_names_where_engines_take_them(tmp_path: Path) -> None:
    report, (image, caption) = indexed(tmp_path, "captions.csv", "文件名,描述,相机,拍摄 年份\na.png,一只猫,佳能,2024\n")
    try:
        check_field_name("相机")
    except ValueError:
        told = " ".join(item.reason for item in report.quarantined)
        assert "field '相机' was left out" in told
        assert "field '拍摄 年份' was left out" in told
        return
    assert report.quarantined == []
    for record in (image, caption):
        assert (record.metadata["相机"], record.metadata["拍摄_年份"]) == ("佳能", 2024)


def test_a_name_that_engines_refuse_keeps_its_ascii_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not usable")

    monkeypatch.setattr("indexers.fields.check_field_name", refuse)
    assert [field_name(name) for name in ("相机ISO", "作者", "camera")] == ["iso", "", "camera"]
