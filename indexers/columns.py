"""What the columns of a manifest are called, its files and captions, in the languages people write them in.

A name counts however it is typed: case, width (``ｆｉｌｅ``), accents, spaces, underscores, hyphens and a colon at its
end make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SEPARATORS = re.compile(r"[\s_\-\ufeff\u200b]+")

_FILES = """
path, file, image, filename, image path, file path, image name, image file
文件名, 文件名称, 文件, 文件路径, 图片路径, 图片文件, 图片名, 图片名称, 图片, 图像路径, 图像, 照片, 路径
檔案名稱, 檔案名, 檔名, 檔案, 檔案路徑, 圖片路徑, 圖片檔案, 圖片名稱, 圖片, 圖像, 影像, 路徑
ファイル名, ファイル, ファイルパス, 画像パス, 画像ファイル, 画像名, 画像, 写真, パス
파일 이름, 파일명, 파일, 파일 경로, 이미지 경로, 이미지 파일, 이미지, 사진, 경로
Dateiname, Datei, Dateipfad, Bildpfad, Bilddatei, Bild, Foto, Pfad
nom de fichier, nom du fichier, fichier, chemin du fichier, chemin de l'image, chemin
nombre de archivo, nombre del archivo, archivo, fichero, ruta de la imagen, imagen, ruta
имя файла, файл, путь к файлу, изображение, картинка, фотография, фото, путь
"""
_CAPTIONS = """
caption, captions, text
描述, 图片描述, 说明, 图片说明, 文字说明, 图注, 文字, 文本
圖片描述, 說明, 圖片說明, 文字說明, 圖說
キャプション, 説明, 説明文, 画像の説明, テキスト
설명, 이미지 설명, 캡션, 텍스트
Beschreibung, Bildbeschreibung, Bildunterschrift
légende, texte
descripción, leyenda, pie de foto, texto
описание, подпись, текст
"""
_TITLES = """
description, title, comment
标题, 標題, タイトル, 題名, 제목, Titel, titre, título, заголовок, название
"""


@lru_cache(4096)
def folded(name: str) -> str:
    """A column's name as it is compared."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return _SEPARATORS.sub("", letters).rstrip(":")


def _ranked(names: str) -> dict[str, int]:
    return {folded(name): rank for rank, name in enumerate(re.split(r"[,\n]", names.strip()))}


#: Folded names of columns to their rank: where several are there, the first is the file, and captions add up in order.
FILE_COLUMNS = _ranked(_FILES)
CAPTION_COLUMNS = _ranked(_CAPTIONS)
#: Captions of a file that has no other; metadata in any case, as they always were.
TITLE_COLUMNS = _ranked(_TITLES)
#: Files whatever stands beside them, as they always were.
PLAIN_FILE_COLUMNS = frozenset({"path", "file", "image", "filename"})
#: Running text: what it was taken from stands beside it more often than a picture.
TEXT_COLUMNS = frozenset(map(folded, ("text", "文本", "文字", "テキスト", "텍스트", "texte", "texto", "текст")))
