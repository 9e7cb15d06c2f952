"""The commands copy, export, import and engines, from the command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from app.cli.transfer import Location, location
from app.core import local_servers as servers
from app.main import main
from backends import connect
from backends.base import CollectionSpec, Record
from backends.faiss.backend import FaissBackend


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"faiss://{tmp_path / 'one'}"
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    with connect(url) as backend:
        backend.create(CollectionSpec("photos", 8, encoder="toy:1"))
        backend.upsert("photos", [Record(f"p/{n}", v, "image", f"photo {n}") for n, v in enumerate(vectors)])
    return url


def count(url: str, name: str) -> int:
    with connect(url) as backend:
        return backend.count(name)


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("faiss:///a/b/photos", "faiss:///a/b", "photos"),
        ("faiss://./b/photos", "faiss://./b", "photos"),
        ("weaviate://host:8080/photos?grpc=50051", "weaviate://host:8080?grpc=50051", "photos"),
        ("postgresql://me@host/db/photos", "postgresql://me@host/db", "photos"),
        ("exact:///photos", "exact://", "photos"),
    ],
)
def test_a_location_is_a_url_and_a_collection(text, url, name):
    assert location(text) == Location(url, name)


@pytest.mark.parametrize("text", ["photos", "faiss:///", "/a/photos", "faiss:///dir/"])
def test_what_names_no_collection_is_refused(text, store, capsys):
    assert main(["copy", text, f"{store}/other"]) == 2
    assert "URL/COLLECTION" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["faiss", "qdrant-edge", "chroma-embedded"])
def test_copy_within_one_folder_that_is_named_in_two_ways(store, scheme, tmp_path, capsys):
    there, again = f"{scheme}://{tmp_path}/there", f"{scheme}://{tmp_path}/../{tmp_path.name}/there"
    assert main(["copy", f"{store}/photos", f"{there}/photos"]) == 0
    assert main(["copy", f"{there}/photos", f"{again}/copied"]) == 0, capsys.readouterr().err
    assert count(there, "photos") == count(there, "copied") == 50


@pytest.mark.parametrize("scheme", ["faiss", "qdrant-edge", "chroma-embedded"])
@pytest.mark.parametrize("command", [("search", "a dog"), ("collections",), ("drop", "--yes", "photos")])
def test_a_command_that_only_reads_makes_no_store(scheme, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SIGHTLINE_BACKEND", f"{scheme}://{tmp_path}/typo")
    assert main(list(command)) in (0, 1)
    assert not (tmp_path / "typo").exists(), capsys.readouterr()


def test_copy_between_stores_and_within_one(store, tmp_path, capsys):
    for target in (f"faiss://{tmp_path / 'two'}", store):
        assert main(["copy", f"{store}/photos", f"{target}/copied"]) == 0
        out = capsys.readouterr().out
        assert "50 written" in out
        assert "overlap 100.0%" in out
        assert count(target, "copied") == 50
        assert main(["copy", f"{store}/photos", f"{target}/copied", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["unchanged"] == 50


def test_copy_says_what_is_wrong(store, capsys):
    assert main(["copy", f"{store}/photos", f"{store}/photos"]) == 2
    assert main(["copy", f"{store}/nothing", f"{store}/other"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_export_and_import(store, tmp_path, capsys):
    folder = str(tmp_path / "archive")
    assert main(["export", folder, "--backend", store, "--collection", "photos"]) == 0
    assert main(["export", folder, "--backend", store, "--collection", "photos"]) == 1
    assert "finished archive" in capsys.readouterr().err
    target = f"faiss://{tmp_path / 'three'}"
    assert main(["import", folder, "--backend", target]) == 0
    assert main(["import", folder, "--backend", target, "--collection", "again"]) == 0
    assert "50 written" in capsys.readouterr().out
    assert count(target, "photos") == count(target, "again") == 50
    assert main(["import", str(tmp_path), "--backend", target]) == 1
    assert "manifest.json is not there" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_finishes_the_records_in_hand(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("indexers.transfer.BATCH", 20)
    target = f"faiss://{tmp_path / 'two'}"
    upsert = FaissBackend.upsert

    def interrupted(self, name, records):
        os.kill(os.getpid(), signal.SIGINT)
        upsert(self, name, records)

    monkeypatch.setattr(FaissBackend, "upsert", interrupted)
    assert main(["copy", f"{store}/photos", f"{target}/copied"]) == 130
    err = capsys.readouterr().err
    assert "run the same command again" in err
    assert "Traceback" not in err
    monkeypatch.setattr(FaissBackend, "upsert", upsert)
    assert count(target, "copied") == 20
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["copy", f"{store}/photos", f"{target}/copied"]) == 0
    assert "30 written, 20 were there" in capsys.readouterr().out


def test_a_server_goes_up_and_down(port, isolated, monkeypatch, capsys):
    assert main(["engines", "up", "small"]) == 0
    assert capsys.readouterr().out == f"small://127.0.0.1:{port}\n"
    assert servers.running("small", isolated)
    assert main(["engines", "down", "small"]) == 0
    assert main(["engines", "down", "small"]) == 0
    assert "was not running" in capsys.readouterr().err
    assert main(["engines", "up", "oracle"]) == 1
