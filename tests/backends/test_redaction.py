"""No secret of an address is shown or told: redaction hides whatever is not known to be harmless."""

from __future__ import annotations

import logging
import re
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backends
from app.cli.transfer import location
from app.core.server_probe import Answer
from app.core.settings import Settings
from app.http.observing import JsonLines
from app.main import main
from backends import redaction, registry
from backends.errors import Unavailable
from backends.redaction import redact, remember, remember_url, shown
from benchmarks.suite.engines import EngineError, choose
from retrieval.chat.errors import redacted_line
from retrieval.llms import ModelError, load_model

CORE = "Hunter2Core"
OTHER = "4aKeyOfOneTest"
SCHEMES = (*backends.engines(), "postgres", "opensearch", "http", "x-y.z+1")
#: Where a secret may stand; PATH for the schemes whose path is no folder and no database.
PLACES = (
    "{s}://ann:SECRET@db.example:9200",
    "{s}://SECRET@db.example:9200/photos",
    "{s}://:SECRET@127.0.0.1:1?grpc=50051",
    "{s}://a@b:SECRET@db.example",
    "{s}://db.example?api_key=SECRET&database=d",
    "{s}://db.example/photos?sslmode=require&token=SECRET",
    "{s}://db.example?SECRET",
    "{s}://db.example#SECRET",
    "{s}://db.example/photos?a=b#SECRET",
    "{s}:///photos?password=SECRET",
    "{s}:///photos#SECRET",
    "ann:SECRET@db.example:9200",
    "SECRET",
    "SECRET@db.example",
    "ann:SECRET@db.example/?to={s}://other",
)
IN_PATH = ("{s}://db.example/SECRET", "{s}://db.example/hooks/SECRET?database=d", "{s}://SECRET/@db.example")

around = st.text(":/?#@%+ ,;=.[]'\"a1é\n", max_size=4)
secrets = st.builds(lambda before, after: before + CORE + after, around, around)


def is_path(url: str) -> bool:
    """Whether the secret stands in the path of a folder's URL, which is shown."""
    place = re.split(r"[?#]", url.partition("://")[2])[0]
    info = registry.described(url)
    return info is not None and info.in_folder and place.split("/")[0] in ("", ".", "..") and CORE in place


def urls(schemes: tuple[str, ...], places: tuple[str, ...]) -> st.SearchStrategy[str]:
    def built(scheme: str, place: str, secret: str, escaped: bool) -> str:
        return place.replace("{s}", scheme).replace("SECRET", quote(secret, safe="") if escaped else secret)

    return st.builds(built, st.sampled_from(schemes), st.sampled_from(places), secrets, st.booleans()).filter(
        lambda url: not is_path(url)
    )


#: Those whose paths name neither a folder nor a database, and are not shown.
SHOWN_PATHS = {s for s, info in backends.engines().items() if info.in_folder or info.names_database}
OTHERS = tuple(s for s in SCHEMES if s not in SHOWN_PATHS)


@settings(max_examples=600)
@given(urls(SCHEMES, PLACES) | urls(OTHERS, IN_PATH))
def test_a_secret_anywhere_in_an_address_is_not_shown(url: str) -> None:
    assert CORE not in shown(url)


# Milvus' client tries again for seconds; what it is asked to connect to below is refused before.
QUICK = tuple(scheme for scheme in SCHEMES if scheme != "milvus")
UNREACHABLE = (
    "{s}://ann:SECRET@127.0.0.1:1",
    "{s}://:SECRET@127.0.0.1:1",
    "{s}://SECRET@127.0.0.1:1/photos",
    "{s}://127.0.0.1:1?grpc_port=1&api_key=SECRET",
    "{s}://127.0.0.1:1?https=SECRET",
    "{s}://127.0.0.1:1?timeout=SECRET",
    "{s}://127.0.0.1:1?timeout_s=SECRET",
    "{s}://127.0.0.1:1/photos?SECRET=1",
    "{s}://127.0.0.1:1/photos#SECRET",
    "{s}://127.0.0.1:SECRET",
    "{s}:///dev/null/x?SECRET",
    "{s}:///dev/null/x#SECRET",
    "SECRET",
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(urls(QUICK, UNREACHABLE))
def test_no_error_of_connect_tells_a_secret(url: str) -> None:
    told = ""
    try:
        backends.connect(url).close()
    except (ValueError, backends.BackendError) as error:
        told = repr(error)
    assert CORE not in told


@pytest.mark.parametrize(
    "url",
    [
        f"milvus://{CORE}@127.0.0.1:1",
        f"milvus://127.0.0.1:1?timeout=1&token=root:{CORE}",
        f"milvus://127.0.0.1:1?timeout={CORE}",
        f"postgresql://ann:{CORE}/x@127.0.0.1:1/photos",
        f"postgresql://ann:1/{CORE}@127.0.0.1/photos",
        f"postgresql://{CORE}:x@127.0.0.1:1",
        f"weaviate://:{CORE}\u2100@127.0.0.1:1",
        f"qdrant://127.0.0.1:1?api_key={CORE}é",
    ],
)
def test_clients_that_quote_their_address_do_not_tell_it(url: str) -> None:
    with pytest.raises((ValueError, backends.BackendError)) as caught:
        backends.connect(url)
    assert CORE not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("opensearch://admin:hunter2@host:9200", "opensearch://host:9200"),
        ("opensearch://host:9200/hooks/T0/secret", "opensearch://host:9200/…"),
        ("admin:hunter2@host:9200", "…"),
        ("/home/me/index", "…"),
        ("qdrant://host:secret", "qdrant://…"),
        ("faiss:///a/b@c", "faiss:///a/b@c"),
        ("faiss:///a/b?key=secret", "faiss:///a/b"),
        ("faiss://secret@a/b", "faiss://…"),
        ("qdrant-edge://./a", "qdrant-edge://./a"),
        ("exact://secret", "exact://…"),
        ("postgresql://u:p@h1:5432,h2:5433/db", "postgresql://h1:5432,h2:5433/db"),
        ("postgresql:///db?host=/run/pg&passfile=/x", "postgresql:///db?host=/run/pg"),
        ("milvus://[::1]:19530?Token=secret", "milvus://[::1]:19530"),
        ("qdrant://host:6333?database=a;b=secret", "qdrant://host:6333"),
        ("http://user:key@host/v1?api_key=secret", "http://host/…"),
    ],
)
def test_what_is_left_of_an_address(url: str, told: str) -> None:
    assert shown(url) == told


def test_what_was_opened_once_is_hidden_in_every_text() -> None:
    remember_url(f"weaviate://:{OTHER}-1@host:8080")
    remember_url(f"http://host/v1?key={OTHER}-2&v=1")
    remember("pass")
    assert redact(f"a header {OTHER}-1 and {OTHER}-2") == "a header *** and ***"
    assert redact("pass, but no passage") == "***, but no passage"
    assert str(Unavailable(f"it said {OTHER}-1")) == "it said ***"
    assert redacted_line(f"Incorrect key: {OTHER}-2") == "Incorrect key: ***"
    record = logging.LogRecord("app", logging.WARNING, "", 0, "%s", (f"{OTHER}-1",), None)
    assert OTHER not in JsonLines().format(record)


def test_a_name_or_a_database_is_no_secret_of_a_url() -> None:
    remember_url("postgresql://postgresuser:aVeryLongPassword@db.example/photographs")
    text = "postgresuser may not use photographs at db.example"
    assert redact(text) == text
    assert redact("aVeryLongPassword") == "***"


def test_keys_of_ours_and_of_others_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-looking-words")
    assert redact("said plain-looking-words") == "said ***"
    assert redact("sl_0123456789ab_" + 43 * "x") == "sl_0123456789ab_***"
    assert redact("at http://ann:pw@host/x", foreign=True) == "at http://***@host/x"
    assert "hidden1" not in redact("password=hidden1 Authorization: hidden1 Bearer hidden1", foreign=True)


def test_a_key_that_comes_changes_or_goes_is_hidden_from_then_on_and_names_are_looked_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "plain-looking-words, other-plain-words"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert redact(text) == text
    monkeypatch.setenv("OPENAI_API_KEY", "plain-looking-words")
    assert redact(text) == "***, other-plain-words"
    looked = redaction._names_secret.cache_info().misses
    monkeypatch.setenv("OPENAI_API_KEY", "other-plain-words")
    assert redact(text) == "plain-looking-words, ***"
    assert redaction._names_secret.cache_info().misses == looked
    monkeypatch.delenv("OPENAI_API_KEY")
    assert redact(text) == text


def test_objects_do_not_show_the_addresses_they_hold() -> None:
    url = f"postgresql://ann:{CORE}@db/photos"
    settings = Settings.load({"backend": url, "model_url": f"http://host/v1?key={CORE}"}, env={})
    assert "postgresql://db/photos" in repr(settings)
    assert CORE not in repr(settings)
    assert CORE not in repr(Answer(url, shown(url), "test"))
    assert CORE not in repr(location(f"{url}/x"))
    (engine,) = choose([url])
    assert CORE not in repr(engine)
    with pytest.raises(EngineError) as caught:
        choose([f"unheard-of://ann:{CORE}@db"])
    assert CORE not in str(caught.value)


def test_a_model_s_address_tells_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError) as caught:
        load_model("openai:x", base_url=f"http://ann:{CORE}@host/v1")
    assert CORE not in str(caught.value)
    load_model("openai:x", base_url=f"http://host/v1?api_key={CORE}-of-a-model")
    assert redact(f"404 for /v1?api_key={CORE}-of-a-model") == "404 for /v1?api_key=***"


@pytest.mark.parametrize(
    "command",
    [
        ["collections", "--json", "--backend", f"opensearch://ann:{CORE}@db"],
        ["collections", "--backend", f"ann:{CORE}@db:9200"],
        ["search", "cat", "--backend", f"weaviate://:{CORE}@127.0.0.1:1"],
        ["copy", f"ann:{CORE}@db", "exact:///x"],
        ["keys", "remove", "sl_0123456789ab_" + CORE + 32 * "x"],
        ["--debug", "collections", "--backend", f"postgresql://ann:{CORE}@127.0.0.1:1/x"],
    ],
)
def test_no_command_tells_a_secret(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(command) in (1, 2)
    out, err = capfd.readouterr()
    assert CORE not in out + err
    assert "error: " in err


def test_an_option_without_its_value_takes_no_word_from_messages() -> None:
    remember_url("qdrant://db.example?api_key")
    assert redact("give the right one in api_key") == "give the right one in api_key"
    remember_url(f"qdrant://db.example?{OTHER}Bare")
    assert redact(f"got {OTHER}Bare") == "got ***"
