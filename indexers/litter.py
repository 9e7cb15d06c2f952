"""Names that systems and programs leave among people's files, which are left out unless somebody asks for them."""

from __future__ import annotations

import re

#: What they are, and the names in lower case; the first that matches is said. A folder's name counts for all below it.
_LITTER: tuple[tuple[str, str], ...] = (
    ("thumbnails of a NAS", r"@eadir|@__thumb|\.@__thumb|@synoresource|@synoeastream|[.#~]snapshot|@tmp"),
    (
        "deleted files",
        r"#recycle|@recycle|\$recycle\.bin|recycler|recycled|\.recycle|\.trashe?s?(-.*)?|\.trashed-.*|\.dtrash",
    ),
    (
        "files of macOS",
        r"__macosx|\._.*|\.ds_store|\.appledouble|\.spotlight-v100|\.fseventsd|\.temporaryitems|\.documentrevisions-v100"
        r"|\.apdisk|\.volumeicon\.icns|icon\r",
    ),
    (
        "files of Windows",
        r"thumbs\.db|ehthumbs.*\.db|desktop\.ini|system volume information|~\$.*",
    ),
    (
        "previews of photo programs",
        r".*\.(lrdata|lrprev|lrcat-data|cot|cof)|\.thumbnails?|\.picasaoriginals|\.?picasa\.ini|\.photoprism|\.comments",
    ),
    ("remains of disk repairs", r"lost\+found|found\.\d{3}"),
    ("unfinished files", r".*\.(part|partial|crdownload|tmp|filepart|!ut|download)|\.~lock\..*"),
    ("files of programming tools", r"node_modules|__pycache__|\.git|\.svn|\.hg|\.venv|\.tox|\.mypy_cache"),
    ("hidden files", r"\..*"),
)
_NAMES = tuple((what, re.compile(pattern, re.DOTALL)) for what, pattern in _LITTER)
_MAY_BE = re.compile(
    "|".join(f"(?:{pattern})" for _, pattern in _LITTER),
    re.DOTALL,
)


def litter(name: str) -> str | None:
    """What files with this name are, or files in a folder with it, in the plural; None for what is no litter."""
    lower = name.lower()
    if not _MAY_BE.fullmatch(lower):
        return None
    return next(what for what, pattern in _NAMES if pattern.fullmatch(lower))
