"""A folder as people have it: many kinds of pictures, sidecars, manifests, other files, and what systems leave."""

from __future__ import annotations

import io
import json
import random
import unicodedata
import zipfile
from pathlib import Path

from PIL import Image

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmp:Rating="4" exif:GPSLatitude="52,31.5N" exif:GPSLongitude="13,24.3W">
<dc:description><rdf:Alt><rdf:li xml:lang="de">Ein Boot</rdf:li><rdf:li xml:lang="x-default">A boat</rdf:li></rdf:Alt>
</dc:description><dc:subject><rdf:Bag><rdf:li>harbour</rdf:li><rdf:li>evening</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A photograph of nothing, another one for each number."""
    chance = random.Random(seed)
    image = Image.frombytes("RGB", (8, 6), chance.randbytes(144)).resize(size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def saved(file_format: str, *colours: object) -> bytes:
    """A picture of several pages or frames, or of one."""
    images = [Image.new("RGB", (40, 30), colour) for colour in colours]  # type: ignore[arg-type]
    buffer = io.BytesIO()
    images[0].save(buffer, file_format, **({"save_all": True, "append_images": images[1:]} if images[1:] else {}))
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    """A zip archive of these files, by names in which __ stands for a slash and _ for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return buffer.getvalue()


def takeout(**fields: object) -> bytes:
    """The JSON file that Google writes beside a photograph."""
    return json.dumps({"photoTakenTime": {"timestamp": "1500000000"}, **fields}).encode()


def make_folder(root: Path) -> int:
    """Fill a folder with all of it; the number of its files."""
    umlaut = unicodedata.normalize("NFD", "Müller")
    long_name = "A long name of a photograph that was taken near the harbour.jpg"
    files: dict[str, bytes] = {
        # Pictures, by content whatever they are called.
        "photos/cat.jpg": jpeg(1),
        "photos/cup.jpg": jpeg(2),
        "photos/same cup.jpg": jpeg(2),
        "photos/no ending": jpeg(3),
        "photos/tweet.jpg_large": jpeg(4),
        "photos/wrong.txt": jpeg(5),
        "photos/cut.jpg": jpeg(6, (400, 300))[:-300],
        "photos/half.jpg": jpeg(7, (400, 300))[:3000],
        "photos/page.jpg": b"<!DOCTYPE html><html><body>not found</body></html>",
        "photos/scan.tif": saved("TIFF", "red", "lime", "blue"),
        "photos/moving.gif": saved("GIF", "navy", "teal"),
        "photos/line\nbreak \u202egpj.png": saved("PNG", "olive"),
        # Sidecars.
        f"names/{umlaut}.png": saved("PNG", "pink"),
        f"names/{unicodedata.normalize('NFC', 'Müller')}.txt": b"Anna on the beach",
        "names/SCAN.JPG": jpeg(8),
        "names/scan.TXT": "Rechnung der Gärtnerei".encode("cp1252"),
        "names/a.jpg": jpeg(9),
        "names/a.jpg.txt": b"beside the whole name",
        "names/Twin.jpg": jpeg(10),
        "names/TWIN.jpg": jpeg(11),
        "names/twin.txt": b"of one of them",
        "xmp/boat.jpg": jpeg(12),
        "xmp/boat.xmp": XMP.encode(),
        "xmp/b.jpg": jpeg(13),
        "xmp/b.jpg.xmp": XMP.replace("boat", "ship").encode(),
        "xmp/bomb.jpg": jpeg(14),
        "xmp/bomb.xmp": BOMB.encode(),
        "xmp/lonely.xmp": XMP.encode(),
        "takeout/IMG.jpg": jpeg(15),
        "takeout/IMG.jpg.json": takeout(
            title="IMG.jpg",
            description="Lena sails",
            people=[{"name": "Lena"}],
            geoData={"latitude": 53.5, "longitude": 9.9},
        ),
        "takeout/IMG(1).jpg": jpeg(16),
        "takeout/IMG.jpg(1).json": takeout(title="IMG.jpg", description="the second"),
        "takeout/IMG_2020(1).jpg": jpeg(17),
        "takeout/IMG_2020(1).jpg.supplemental-metadata.json": takeout(description="supplemented"),
        f"takeout/{long_name}": jpeg(18),
        f"takeout/{long_name[:46]}.json": takeout(title=long_name, description="cut short"),
        # Manifests.
        "set/captions.csv": b'sep=;\nfile;caption;\nx.png;of the table;\n"open;never closed\ny.png;read on;\n',
        "set/x.png": saved("PNG", "gold"),
        "set/y.png": saved("PNG", "silver"),
        "hf/metadata.jsonl": b'{"file_name": "z.png", "text": "of a data set"}\n',
        "hf/z.png": saved("PNG", "tan"),
        "odd/metadata.csv": b"sensor,value\n1,2\n",
        # Texts.
        "docs/notes.txt": b"The harbour lease ends in May.\n",
        "docs/readme.MD": b"# Boat\n\nThe boat is blue.\n",
        "docs/README": b"The engine is old.\n",
        # What is not read.
        "docs/data.json": b'{"a": 1}',
        "docs/letter.pages": zipped(Index__Document_iwa=b"x"),
        "raw/DSC1.NEF": b"II*\0" + bytes(200),
        "photos.zip": zipped(inside_jpg=jpeg(19)),
        "logo.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "unknown.xyz": bytes(range(256)),
        "music.mp3": b"ID3\x04" + bytes(50),
        # Litter.
        "photos/@eaDir/cat.jpg/SYNOPHOTO_THUMB_XL.jpg": jpeg(20),
        "photos/@eaDir/cat.jpg/SYNOPHOTO_THUMB_M.jpg": jpeg(21),
        "photos/#recycle/deleted.jpg": jpeg(22),
        "$RECYCLE.BIN/$R1.jpg": jpeg(23),
        "__MACOSX/photos/._cat.jpg": b"\0\5\x16\7" + bytes(60),
        "photos/._cat.jpg": b"\0\5\x16\7" + bytes(60),
        "photos/.DS_Store": b"\0\0\0\1Bud1",
        "photos/Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(500),
        "Lightroom Previews.lrdata/p.jpg": jpeg(24),
        "lost+found/f1.jpg": jpeg(25),
        "photos/.hidden.jpg": jpeg(26),
        "private/.sightlineignore": b"*.jpg\n!kept.jpg\n",
        "private/secret.jpg": jpeg(27),
        "private/kept.jpg": jpeg(28),
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(files)
