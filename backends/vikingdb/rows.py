"""The rows of one collection: written, read, found, and waited for until the index shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import Corrupt, Unavailable
from backends.vikingdb.connection import Refused, VikingServer
from backends.vikingdb.filters import all_of
from backends.vikingdb.records import BODY, ID, PARTS, POSITION, SCALARS, STAMP, VECTOR, part_keys

BATCH = 100
MAX_LIMIT = 5000
#: VikingDB promises 20 s at most.
VISIBLE_S = 120.0
POLL_S = (0.02, 0.5)
ATTEMPTS = 5
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a collection called `name`, `collection` in VikingDB, as one of its indexes has them."""

    server: VikingServer
    name: str
    collection: str
    index: str

    def _call(self, call: str, body: Mapping[str, Any], *, in_index: bool = True) -> Any:
        target = {"collection_name": self.collection} | ({"index_name": self.index} if in_index else {})
        return self.server.data(call, {**target, **body})

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store rows, `BATCH` at a time; some may be stored when one is refused."""
        for batch in batches(rows):
            self._call("upsert", {"data": batch}, in_index=False)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove rows, those that are there."""
        for batch in batches(keys):
            self._call("delete", {"ids": batch}, in_index=False)

    def fetch(self, keys: Sequence[str]) -> list[Row]:
        """The rows of these keys as they are stored, with vectors; those that are not there are left out."""
        found: dict[str, Row] = {}
        for batch in batches(list(dict.fromkeys(keys))):
            try:
                result = self._call("fetch_in_collection", {"ids": batch}, in_index=False)
            except Refused as error:
                if error.missing:
                    raise self.server.not_found(self.name) from error
                raise
            for item in result.get("fetch") or []:
                found[item["id"]] = {**item["fields"], ID: item["id"]}
        return [found[key] for key in keys if key in found]

    def fetch_in_index(self, keys: Sequence[str]) -> dict[str, str]:
        """The stamps of the rows of these keys as the index has them."""
        found: dict[str, str] = {}
        for batch in batches(keys):
            result = self._call("fetch_in_index", {"ids": batch, "output_fields": [STAMP]})
            found |= {item["id"]: item["fields"][STAMP] for item in result.get("fetch") or []}
        return found

    def with_vectors(self, rows: Sequence[Row]) -> list[Row]:
        """Rows as they are, but that those without a vector have the one in the index; removed ones are left out.

        Pages of the documentation differ in whether a row that is fetched has it. The index may be behind: a vector
        of another write than the row's is never put to it.
        """
        found: dict[str, Row] = {row[ID]: row for row in rows if VECTOR in row}
        lacking = [row for row in rows if VECTOR not in row]
        for _ in range(ATTEMPTS):
            found |= self._joined(lacking)
            if not (late := {row[ID]: row[STAMP] for row in lacking if row[ID] not in found}):
                break
            self.wait_visible(late)
            lacking = self.whole(self.fetch([*late]))
        else:
            if lacking:
                raise Unavailable(
                    f"{len(lacking):,} records of collection {self.name!r} in {self.server.address} are replaced "
                    "faster than its index shows them: try again later"
                )
        return [found[row[ID]] for row in rows if row[ID] in found]

    def _joined(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Those rows whose very write the index has, with their vectors, by key."""
        found: dict[str, Row] = {}
        for batch in batches(rows):
            result = self._call("fetch_in_index", {"ids": [row[ID] for row in batch], "output_fields": [STAMP]})
            shown = {item["id"]: item for item in result.get("fetch") or []}
            for row in batch:
                item = shown.get(row[ID])
                if item is not None and item["fields"][STAMP] == row[STAMP]:
                    found[row[ID]] = {**row, VECTOR: item["dense_vector"]}
        return found

    def count(self, condition: Mapping[str, Any]) -> int:
        """How many rows fulfil a condition."""
        result = self._call("agg", {"op": "count", "filter": condition})
        # It is the one number that is told; pages of documentation differ in what they call it.
        return sum(int(number) for number in (result.get("agg") or {}).values())

    def nearest(self, vector: Sequence[float], condition: Mapping[str, Any], limit: int) -> list[tuple[float, Row]]:
        """The best rows by score, best first, whole."""
        body = {"dense_vector": vector, "filter": condition, "limit": limit, "output_fields": SCALARS}
        data = self._call("search/vector", body).get("data") or []
        scores = {item["id"]: float(item["score"]) for item in data}
        rows = self.whole([{**item["fields"], ID: item["id"]} for item in data])
        return [(scores[row[ID]], row) for row in rows]

    def by_position(self, condition: Mapping[str, Any], limit: int, cursor: tuple[int, str] | None = None) -> list[Row]:
        """Up to `limit` rows after a position, in order; not always as many as there are, but one if there is one."""
        position, key = cursor or (0, "")
        after = {"op": "range", "field": POSITION, "gte": position}
        # One more than wanted is the one at the cursor, and one shows whether others stand where the last one does.
        ask = min(max(limit, 2) + 2, MAX_LIMIT)
        body = {"field": POSITION, "order": "asc", "filter": all_of({**condition}, after), "limit": ask}
        data = self._call("search/scalar", body | {"output_fields": [*SCALARS, POSITION]}).get("data") or []
        rows = [{**item["fields"], ID: item["id"]} for item in data]
        rows.sort(key=lambda row: (row[POSITION], row[ID]))
        if len(rows) == ask:
            rows = [row for row in rows if row[POSITION] < rows[-1][POSITION]] or rows
        return [row for row in rows if (row[POSITION], row[ID]) > (position, key)][:limit]

    def matching(self, condition: Mapping[str, Any]) -> Iterator[Row]:
        """The rows that fulfil a condition, in order of position, with what `SCALARS` names."""
        cursor: tuple[int, str] | None = None
        while page := self.by_position(condition, 1000, cursor):
            yield from page
            cursor = page[-1][POSITION], page[-1][ID]

    def whole(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with all of their bodies; those that were replaced meanwhile as they are now, removed ones left out."""
        return [found for row in rows if (found := row if not row[PARTS] else self._assembled(row)) is not None]

    def _assembled(self, row: Row) -> Row | None:
        current: Row | None = row
        for _ in range(ATTEMPTS):
            if current is None:
                return None
            keys = part_keys(current[ID], current[STAMP], current[PARTS])
            parts = self.fetch(keys)
            if len(parts) == len(keys):
                return {**current, BODY: current[BODY] + "".join(part[BODY] for part in parts)}
            current = next(iter(self.fetch([row[ID]])), None)
        raise Corrupt(f"a record of collection {self.name!r} in {self.server.address} has lost a part of its text")

    def wait_visible(self, stamps: Mapping[str, str | None]) -> None:
        """Return when the index shows each of these rows with its stamp, or no longer where that is None.

        Rows that others have replaced or removed since are not waited for. Raises `Unavailable` after `VISIBLE_S`.
        """
        pending, deadline, wait_s, first = dict(stamps), time.monotonic() + VISIBLE_S, POLL_S[0], True
        while True:
            for batch in batches(list(pending)):
                shown = self.fetch_in_index(batch)
                if not first:
                    there = {row[ID]: row[STAMP] for row in self.fetch(batch)}
                    for key in batch:
                        if there.get(key) != pending[key]:
                            del pending[key]
                for key in batch:
                    if key in pending and shown.get(key) == pending[key]:
                        del pending[key]
            if not pending:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{len(pending):,} records are stored in collection {self.name!r} in {self.server.address}, but "
                    f"its index does not show them after {VISIBLE_S:.0f} s: look at the index in VikingDB's console"
                )
            time.sleep(wait_s)
            wait_s, first = min(2 * wait_s, POLL_S[1]), False


def batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items, up to `BATCH` at a time."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
