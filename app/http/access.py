"""Who may call what: API keys with scopes, and the count of each caller's requests."""

from __future__ import annotations

from starlette.requests import Request

from app.core.keys import Key, KeyStore, KeyStoreError
from app.http.limits import RateLimit, caller_of
from app.http.problems import Refused

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="sightline"'}
NEEDED = "this needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY"
NONE_LEFT = "there are no API keys any more: add one with sightline keys add, it works at once"


class Access:
    """Lets a request in, or raises the refusal it gets.

    keys: None for a service that asks for none. required: ask for a key even while there is none in the
    store. Where it is not set, keys are asked for from the first one on, and until the process ends:
    removing the last one opens nothing. Everybody is refused then, and told so, until another is added,
    which needs no restart.
    """

    def __init__(self, keys: KeyStore | None, *, required: bool, rate: str | None) -> None:
        self._keys = keys
        self._required = required and keys is not None
        self._rate = RateLimit(rate) if rate else None
        try:
            # Now, not at the first request: the last key may be gone by then.
            self.needs_key()
        except KeyStoreError:
            # There are keys, which nobody can read.
            self._required = True

    def needs_key(self) -> bool:
        """Whether a key is asked for. Raises KeyStoreError when the keys cannot be read."""
        if not self._required and self._keys is not None and self._keys.listed():
            self._required = True
        return self._required

    def admit(self, request: Request, scope: str) -> Key | None:
        """The key of a request that may do what `scope` may; None where none is asked for.

        Raises `Refused` with 401, 403 or 429, KeyStoreError.
        """
        key = None
        needed = self.needs_key()
        if needed and self._keys is not None:
            found = [self._keys.find(text) for text in given_keys(request)]
            key = found[0] if found and None not in found else None
        # Wrong keys count for the address they come from.
        caller = f"key {key.id}" if key else caller_of(request.client.host if request.client else None)
        wait_s = self._rate.wait_s(caller) if self._rate is not None else 0
        if wait_s:
            raise Refused(429, f"too many requests: try again in {wait_s} s", {"Retry-After": str(wait_s)})
        if needed and key is None:
            raise Refused(401, NEEDED if self._keys is None or self._keys.listed() else NONE_LEFT, CHALLENGE)
        if key is not None and not key.allows(scope):
            told = f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope", scope="{scope}"'
            raise Refused(403, f"the key's scope is {key.scope}; this needs {scope}", {"WWW-Authenticate": told})
        return key


def given_keys(request: Request) -> list[str]:
    """The texts of the keys that a request carries; each of them must be one. Other kinds of credentials are not ours.

    Who gives two may do what the first, the bearer's, allows.
    """
    texts = [text for text in (request.headers.get("x-api-key"),) if text is not None]
    kind, _, text = request.headers.get("authorization", "").strip().partition(" ")
    return [text.strip(), *texts] if kind.lower() == "bearer" else texts
