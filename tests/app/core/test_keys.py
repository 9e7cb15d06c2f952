"""API keys: the file they are kept in, and the commands about them."""

from __future__ import annotations

import hmac
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core import keys
from app.core.keys import KeyStore, KeyStoreError
from app.http.access import NEEDED, NONE_LEFT
from app.http.app import create_app
from backends import connect
from tests.support.cli import Run
from tests.support.serving import serving
from tests.support.toy import ColourEncoder


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home" / "keys.json")


def test_a_key_is_found_by_its_text_and_by_nothing_else(store: KeyStore) -> None:
    key, text = store.add("the page", "write")
    other, other_text = store.add("another", "read")
    assert store.find(text) == key
    assert store.find(other_text) == other
    swapped = f"sl_{key.id}_{other_text.split('_', 2)[2]}"
    for wrong in ("", "sl_", text[:-1], text + "a", text.upper(), swapped, f"sl_{'0' * 12}_{text[-43:]}", "é" * 50):
        assert store.find(wrong) is None


def test_scopes_include_those_before_them(store: KeyStore) -> None:
    read, write, admin = (store.add(scope, scope)[0] for scope in ("read", "write", "admin"))
    assert [read.allows(s) for s in ("read", "write", "admin")] == [True, False, False]
    assert [write.allows(s) for s in ("read", "write", "admin")] == [True, True, False]
    assert [admin.allows(s) for s in ("read", "write", "admin")] == [True, True, True]


def test_only_a_hash_is_kept_and_only_its_owner_reads_it(store: KeyStore) -> None:
    _, text = store.add("x", "read")
    assert text.split("_", 2)[2] not in store.file.read_text()
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o600


def test_another_processs_changes_are_seen(store: KeyStore) -> None:
    elsewhere = KeyStore(store.file)
    key, text = store.add("x", "read")
    assert elsewhere.find(text) == key
    store.remove(key.id)
    assert elsewhere.find(text) is None
    assert elsewhere.listed() == []


def test_adding_at_once_loses_none(store: KeyStore) -> None:
    threads = [threading.Thread(target=KeyStore(store.file).add, args=(f"n{i}", "read")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in store.listed()} == {f"n{i}" for i in range(8)}


def test_every_lookup_compares_in_constant_time(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = store.add("x", "read")
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", watched)
    for candidate in (text, "nonsense", f"sl_{'0' * 12}_{'a' * 43}"):
        store.find(candidate)
    assert compared == [(32, 32)] * 3


@pytest.mark.parametrize("content", ["", "{}", '{"keys": [{}]}', '{"keys": [{"id": "a", "scope": "root"}]}', "[]"])
def test_a_damaged_file_lets_nobody_in_and_is_kept(store: KeyStore, content: str) -> None:
    store.file.parent.mkdir()
    store.file.write_text(content)
    for use in (lambda: store.find("x"), lambda: store.add("x", "read"), store.listed):
        with pytest.raises(KeyStoreError, match=r"keys\.json.*restore it, or delete it"):
            use()
    assert store.file.read_text() == content


@pytest.mark.parametrize(("name", "scope"), [("", "read"), ("a\nb", "read"), ("x" * 101, "read"), ("x", "root")])
def test_unusable_names_and_scopes_are_refused(store: KeyStore, name: str, scope: str) -> None:
    with pytest.raises(KeyStoreError):
        store.add(name, scope)
    assert not store.file.exists()


def test_the_commands(isolated: Path, run: Run) -> None:
    made = run("keys", "add", "my script", "--scope", "write")
    assert made.code == 0
    text = made.out.strip()
    listed = run("keys", "--json").json["keys"]
    assert [(k["name"], k["scope"]) for k in listed] == [("my script", "write")]
    assert text not in run("keys").out
    assert KeyStore(isolated / "keys.json").find(text) is not None
    assert run("keys", "remove", listed[0]["id"], "--force").code == 0
    assert KeyStore(isolated / "keys.json").find(text) is None
    again = run("keys", "remove", listed[0]["id"])
    assert again.code == 1
    assert "no key has the id" in again.err
    assert run("keys", "add", "x", "--scope", "root").code == 1


def test_the_last_key_goes_with_force_only_and_says_what_then(isolated: Path, run: Run) -> None:
    first, second = (run("keys", "add", name).out.strip().split("_")[1] for name in ("a", "b"))
    assert run("keys", "remove", first).err.count("\n") == 1
    refused = run("keys", "remove", second)
    assert refused.code == 1
    assert "last key" in refused.err
    assert "--force" in refused.err
    assert len(KeyStore(isolated / "keys.json").listed()) == 1
    gone = run("keys", "remove", second, "--force")
    assert gone.code == 0
    assert "refuses everybody until" in gone.err
    assert KeyStore(isolated / "keys.json").listed() == []


def test_a_running_service_neither_opens_nor_locks_itself(isolated: Path, run: Run) -> None:
    keys = KeyStore(isolated / "keys.json")

    def service(**options: Any) -> Any:
        app = create_app(connect("exact://"), ColourEncoder(), "c", keys=keys, **options)
        return serving(app)

    def add() -> dict[str, str]:
        return {"Authorization": f"Bearer {run('keys', 'add', 'x').out.strip()}"}

    def asked(client: httpx.Client, headers: dict[str, str] | None = None) -> tuple[int, str]:
        response = client.get("/v1/collections", headers=headers)
        return response.status_code, "" if response.is_success else response.json()["detail"]

    def remove_all() -> None:
        for key in keys.listed():
            assert run("keys", "remove", key.id, "--force").code == 0

    with service() as client:
        # Started without keys: open until the first one is made.
        assert asked(client)[0] == 200
        first = add()
        assert asked(client) == (401, NEEDED)
        assert asked(client, first)[0] == 200
        for _ in range(2):
            # Without the last one nobody is let in, and told what helps.
            remove_all()
            assert asked(client) == asked(client, first) == (401, NONE_LEFT)
            assert "sightline keys add" in NONE_LEFT
            assert client.get("/healthz").status_code == 200
            # Another one works at once.
            first = add()
            assert asked(client, first)[0] == 200
            assert asked(client) == (401, NEEDED)
        # A file that is gone is no key left, one that is damaged lets nobody in.
        (isolated / "keys.json").unlink()
        assert asked(client, first) == (401, NONE_LEFT)
        (isolated / "keys.json").write_text("{")
        assert asked(client, first)[0] == 503
        (isolated / "keys.json").unlink()
        assert asked(client, add())[0] == 200
    with service() as client:
        # Started with a key.
        remove_all()
        assert asked(client) == (401, NONE_LEFT)
    with service(require_keys=True) as client:
        # Public.
        assert asked(client) == (401, NONE_LEFT)
        assert asked(client, add())[0] == 200
