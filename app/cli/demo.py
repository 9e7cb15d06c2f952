"""The demo: index pictures that installed packages carry, ask for some of them, and write the results page."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import shutil
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import encoder_for, open_backend, samples_folder, write_atomically
from app.cli.index import run, summary
from app.cli.output import hit_object, note, place, print_hits, print_json, program, write
from app.core.errors import CommandError
from app.core.settings import Settings, default_backend

if TYPE_CHECKING:
    from app.cli.results_page import Section
    from retrieval.search.retriever import Retriever

COLLECTION = "demo"
PICTURE_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
#: Where Debian's package tuxpaint-stamps-default puts its pictures.
STAMPS = Path("/usr/share/tuxpaint/stamps")
MAX_CAPTION_BYTES = 4096

TEXT_QUERIES = ("a cup of coffee", "a cat looking at something", "a rocket on its launch pad")
LOOKUP = "photos/coffee.png"
ASKED_ABOUT = "photos/chelsea.png"
COMPOSED = (("photos/rocket.jpg", 1.0), ("a person wearing a space suit", 1.0), ("a tower", -1.0))


@options.grouped
def demo(
    *,
    stamps: Annotated[bool, typer.Option(help="Take in Debian's tuxpaint-stamps-default where installed.")] = True,
    chosen: options.EncoderFlags,
    k: Annotated[int, typer.Option("--k", metavar="N", help="How many results a query.")] = 5,
    output: options.OutputFlags,
) -> None:
    """Index two dozen photographs that packages carry, search them five ways, and write the results page.

    They go into the collection that `search` and `serve` look at. A store that already holds something else is
    left alone; the demo then has a store of its own, in the folder `demo` of the home. A second run finds it
    all unchanged.
    """
    settings = replace(options.load_settings(chosen, k=k), batch_size=16)
    folder = settings.home / "demo"
    pictures = gather(folder / "pictures", stamps=STAMPS if stamps else None)
    if holds_other_items(settings, pictures.parent):
        from backends.redaction import shown

        note(f"what is in {shown(settings.backend)} is left alone: the demo has a store of its own, in {folder}")
        settings = replace(settings, backend=default_backend(folder), collection=COLLECTION)
    from app.cli.results_page import render
    from backends.base import IndexSpec
    from indexers import open_source
    from retrieval.search.retriever import Retriever

    with open_backend(settings) as store:
        model = encoder_for(settings, store, chosen.encoder)
        source = open_source(pictures)
        report = run(source, store, model, settings, prune=True, spec=IndexSpec())
        note(summary(report))
        if report.interrupted:
            note("interrupted: run the demo again to go on from there")
            raise typer.Exit(130)
        sections = list(
            ask(Retriever(store, model, settings.collection, samples=samples_folder(settings)), pictures.parent, k)
        )
    page = output.html or folder / "results.html"
    write_atomically(page, render("Sightline demo", sections, [f"{report.found:,} pictures", f"encoder {model.name}"]))
    if output.as_json:
        print_json(
            {"report": report.to_dict(), "page": str(page.absolute()), "searches": [_object(s) for s in sections]}
        )
    else:
        for section in sections:
            write(f"\n{section.title}: {_words(section)}")
            print_hits(section.hits)
        write(f"\nresults page: {page.absolute()}\n")
        for line in next_steps(settings, pictures.parent):
            write(line)
    if output.open_page and not webbrowser.open(page.absolute().as_uri()):
        note(f"note: no browser could be opened; open {page.absolute()} yourself")


def holds_other_items(settings: Settings, pictures: Path) -> bool:
    """Whether the store of `settings` holds anything but the demo's own pictures and their captions."""
    from backends.urls import local_path

    own = pictures.resolve()
    with open_backend(settings) as store:
        names = store.collections()
        if settings.collection not in names:
            return bool(names)
        return any(
            (path := local_path(record.uri)) is None or not path.is_relative_to(own)
            for page in store.scan(settings.collection, with_vectors=False)
            for record in page.records
        )


def next_steps(settings: Settings, pictures: Path) -> list[str]:
    """What to type next: three commands that work as they stand, and the address of the page."""
    usual = Settings.load({})
    where = []
    if settings.backend != usual.backend:
        where += ["--backend", settings.backend]
    if settings.collection != usual.collection:
        where += ["--collection", settings.collection]
    commands = (["search", "a", "rocket"], ["lookup", str((pictures / ASKED_ABOUT).absolute())], ["serve"])
    typed = [f"  {program()} {shlex.join([*command, *where])}" for command in commands]
    typed[-1] += "    # then open http://127.0.0.1:8000/"
    return ["Try next:", *typed]


def ask(retriever: Retriever, pictures: Path, k: int) -> Iterator[Section]:
    """The five searches of the demo over the collection, as sections of the page."""
    from app.cli.results_page import Section, parts_of
    from retrieval.search.query import Term

    for words in TEXT_QUERIES:
        hits = retriever.search(words, k, modality="image")
        yield Section("Words to pictures", parts_of([Term(words)]), hits)
    picture = pictures / LOOKUP
    yield Section("Picture to words", parts_of([Term(picture)]), retriever.lookup(picture, k))
    terms = [Term(pictures / v if v.startswith("photos/") else v, weight) for v, weight in COMPOSED]
    yield Section("Picture and words", parts_of(terms), retriever.search(terms, k, modality="image"))


def _words(section: Section) -> str:
    words = []
    for number, part in enumerate(section.parts):
        sign = "- " if part.weight < 0 else "+ " if number else ""
        weight = f" (weight {abs(part.weight):g})" if abs(part.weight) != 1 else ""
        words.append(f"{sign}{Path(part.text).name if part.image is not None else repr(part.text)}{weight}")
    return " ".join(words)


def _object(section: Section) -> dict[str, Any]:
    terms = [{"term": place(part.text), "weight": part.weight} for part in section.parts]
    return {"title": section.title, "terms": terms, "hits": [hit_object(hit) for hit in section.hits]}


def gather(folder: Path, *, stamps: Path | None = STAMPS) -> Path:
    """Copy the demo's pictures below `folder` and write their manifest; returns the manifest's path.

    What is there already is left alone. stamps: a folder of Tux Paint stamps to add, if it exists. Raises
    CommandError naming the package to install when no photograph is found.
    """
    lines = [*_photographs(folder), *(_stamps(folder, stamps) if stamps is not None and stamps.is_dir() else ())]
    manifest = folder / "captions.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with contextlib.suppress(OSError):
        if manifest.read_text(encoding="utf-8") == text:
            return manifest
    write_atomically(manifest, text)
    return manifest


def _photographs(folder: Path) -> Iterator[dict[str, Any]]:
    """The manifest lines of the photographs in installed packages, which are copied below `folder`."""
    homes = {package: _package_folder(package) for package in PICTURE_FOLDERS}
    missing = [PACKAGES[package] for package, home in homes.items() if home is None]
    if missing:
        raise CommandError(
            f"the demo's photographs come with {' and '.join(missing)}, not installed: pip install 'sightline[demo]'"
        )
    wanted = (resources.files("app.cli") / "demo.jsonl").read_text(encoding="utf-8")
    for line in map(json.loads, wanted.splitlines()):
        home = homes[line["from"]]
        assert home is not None
        if not (home / line["file"]).is_file():
            note(f"note: this version of {PACKAGES[line['from']]} has no {line['file']}; the demo goes on without")
            continue
        _copy(home / line["file"], folder / "photos" / line["file"])
        yield {
            "path": f"photos/{line['file']}",
            "captions": line["captions"],
            "kind": "photo",
            "package": PACKAGES[line["from"]],
        }


def _package_folder(package: str) -> Path | None:
    """Where an installed package keeps its pictures; it is not imported, which would take seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / PICTURE_FOLDERS[package]


def _stamps(folder: Path, stamps: Path) -> Iterator[dict[str, Any]]:
    """The manifest lines of stamps with an English description: the first line of the text beside each."""
    for picture in sorted(stamps.rglob("*.png")):
        text = picture.with_suffix(".txt")
        try:
            caption = text.read_bytes()[:MAX_CAPTION_BYTES].split(b"\n", 1)[0].decode().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if not caption:
            continue
        path = picture.relative_to(stamps).as_posix()
        _copy(picture, folder / "stamps" / path)
        yield {
            "path": f"stamps/{path}",
            "caption": caption,
            "kind": "stamp",
            "topic": path.partition("/")[0],
            "package": "tuxpaint-stamps-default",
        }


def _copy(source: Path, target: Path) -> None:
    """Copy a file, with its times, unless the target is the same already; wholly or not at all."""
    try:
        here, there = source.stat(), target.stat() if target.exists() else None
        if there is not None and (here.st_size, int(here.st_mtime)) == (there.st_size, int(there.st_mtime)):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.copy2(source, partial)
        partial.replace(target)
    except OSError as error:
        raise CommandError(f"cannot copy {source} to {target}: {error.strerror or error}") from None
