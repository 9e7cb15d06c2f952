"""What engines share, by itself; the conformance suite tests it inside each engine."""

from __future__ import annotations

import json
import re
import struct
from random import Random
from uuid import NAMESPACE_DNS, UUID, uuid5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Hit, Record
from backends.kit.field_names import ascii_name
from backends.kit.json_text import decode, decode_metadata, encode
from backends.kit.number_keys import double_below, number_parts, ordered_bits
from backends.kit.parts import in_parts
from backends.kit.record_ids import check_uuid_cursor, id_uuid, storable_ids
from backends.kit.scores import best_first, best_rows

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NEAR_POWERS = st.builds(
    lambda e, d, sign: sign * (2**e + d), st.integers(52, 62), st.integers(-3, 3), st.just(1) | st.just(-1)
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | FLOATS | NEAR_POWERS


LETTERS = st.characters(categories=("Lu", "Ll", "Lo", "Lm"))
NAMES = st.text(LETTERS | st.sampled_from("_09२а年é"), min_size=1, max_size=64).filter(
    lambda name: not name[0].isdigit()
)


def read_back(stored: str) -> str:
    """The field behind an `ascii_name`."""
    if not stored[0].isdigit():
        return stored
    digits, _, basic = stored[1:].partition("_")
    return (f"{basic}-{digits}" if basic else digits).encode("ascii").decode("punycode")


class TestFieldNames:
    @given(NAMES)
    def test_a_name_in_ascii_can_be_read_back(self, name: str) -> None:
        stored = ascii_name(name)
        assert re.fullmatch(r"\w+", stored, re.ASCII)
        assert read_back(stored) == name

    def test_names_in_ascii_stay_as_they_are_and_no_other_becomes_one(self) -> None:
        assert [ascii_name(name) for name in ("year", "_x9", "Year", "v0a")] == ["year", "_x9", "Year", "v0a"]
        assert ascii_name("年")[0].isdigit()
        assert len({ascii_name(name) for name in ("年", "_年", "年_", "a年", "年a", "Год", "год")}) == 7


class TestNumbers:
    @given(NUMBERS, NUMBERS)
    def test_parts_compare_as_the_numbers_do(self, left: float, right: float) -> None:
        for double_of in (double_below, float):
            a, b = number_parts(left, double_of), number_parts(right, double_of)
            assert (a < b) == (left < right)
            assert (a == b) == (left == right)

    @given(st.integers(2**53, 2**63 - 1), st.sampled_from((1, -1)))
    def test_what_doubles_lack_is_small_and_adds_up(self, value: int, sign: int) -> None:
        value *= sign
        bits, left_over = number_parts(value)
        assert 0 <= left_over < 1024
        assert bits == ordered_bits(double_below(value))
        assert int(double_below(value)) + left_over == value
        assert -512 <= number_parts(value, float)[1] <= 512

    @given(FLOATS)
    def test_bits_are_those_of_the_double(self, value: float) -> None:
        bits = ordered_bits(value)
        assert 0 <= bits < 2**64
        raw = bits ^ (2**63 if bits >> 63 else 2**64 - 1)
        assert struct.unpack(">d", raw.to_bytes(8, "big")) == (value,)

    @pytest.mark.parametrize(
        ("value", "below", "nearest"),
        [
            (0, (1 << 63, 0), (1 << 63, 0)),
            (-0.0, (1 << 63, 0), (1 << 63, 0)),
            (1, (0xBFF0_0000_0000_0000, 0), (0xBFF0_0000_0000_0000, 0)),
            (-1.5, (0x4007_FFFF_FFFF_FFFF, 0), (0x4007_FFFF_FFFF_FFFF, 0)),
            (2**53 + 1, (0xC340_0000_0000_0000, 1), (0xC340_0000_0000_0000, 1)),
            (2**63 - 1, (0xC3DF_FFFF_FFFF_FFFF, 1023), (0xC3E0_0000_0000_0000, -1)),
            (-(2**63) + 1, (0x3C1F_FFFF_FFFF_FFFF, 1), (0x3C1F_FFFF_FFFF_FFFF, 1)),
        ],
    )
    def test_what_is_stored_stays_what_it_is(
        self, value: float, below: tuple[int, int], nearest: tuple[int, int]
    ) -> None:
        assert number_parts(value) == below
        assert number_parts(value, float) == nearest


class TestRecordIds:
    @given(st.text(st.characters(), max_size=40) | st.text("aé日", min_size=160, max_size=520))
    def test_storable_are_the_ids_that_records_have(self, text: str) -> None:
        try:
            Record(text, None)
        except ValueError:
            assert storable_ids([text]) == []
        else:
            assert storable_ids([text]) == [text]

    def test_each_id_once_in_order_without_those_that_no_record_has(self) -> None:
        wide = "é" * 256
        given_ids = ["b", "", "a", "a\0b", "b", "\ud800", wide, wide + "x", " "]
        assert storable_ids(iter(given_ids)) == ["b", "a", wide, " "]

    @given(st.text(min_size=1), st.uuids())
    def test_uuids_are_version_5(self, record_id: str, namespace: UUID) -> None:
        assert id_uuid(namespace, record_id) == str(uuid5(namespace, record_id))

    def test_what_is_stored_stays_what_it_is(self) -> None:
        assert id_uuid(NAMESPACE_DNS, "python.org") == "886313e1-3b8a-5372-9b90-0c9aee199e5d"

    def test_cursors_are_uuids_in_any_form(self) -> None:
        found = str(UUID(int=7))
        assert check_uuid_cursor(found, "c") == check_uuid_cursor(found.replace("-", "").upper(), "c") == found
        for cursor in ("", "7", found + "0"):
            with pytest.raises(ValueError, match="is no cursor of a scan of 'c': start without one"):
                check_uuid_cursor(cursor, "c")


# Few values, so that there are ties.
SCORES = st.lists(st.sampled_from((-1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1e300)), max_size=40)


class TestOrder:
    @given(SCORES, st.integers(1, 45), st.randoms())
    def test_hits_stand_best_first_and_ties_by_id(self, scores: list[float], k: int, random: Random) -> None:
        hits = [Hit(f"r{i:02}", score, "image", None, None, {}, True) for i, score in enumerate(scores)]
        shuffled = random.sample(hits, len(hits))
        # The rows are in the order of their ids, which a stable sort by score alone keeps.
        ordered = sorted(hits, key=lambda hit: hit.score, reverse=True)
        assert best_first(shuffled) == ordered
        assert best_first(iter(shuffled), k) == ordered[:k]

    @given(SCORES, st.integers(1, 45), st.sampled_from((np.float32, np.float64)))
    def test_rows_are_the_best_and_all_that_tie_with_the_last(
        self, scores: list[float], k: int, dtype: type[np.floating]
    ) -> None:
        array = np.minimum(scores, 1.0).astype(dtype)
        ordered = sorted(range(len(scores)), key=lambda row: -array[row])
        last = array[ordered[min(k, len(ordered)) - 1]] if ordered else 0.0
        assert best_rows(array, k).tolist() == [row for row in ordered if array[row] >= last]


TEXTS = st.text(max_size=20)
METADATA = st.dictionaries(TEXTS, TEXTS | NUMBERS | st.booleans() | st.lists(TEXTS, max_size=4), max_size=6)


class TestJson:
    @given(METADATA)
    def test_metadata_come_back_with_type_digits_and_order(self, metadata: dict[str, object]) -> None:
        found = decode_metadata(encode(metadata))
        assert repr(found) == repr(metadata)
        assert decode_metadata("7" + encode(metadata), 1) == metadata
        assert json.loads(encode(metadata)) == metadata

    def test_what_is_stored_stays_what_it_is(self) -> None:
        metadata = {"b": True, "a": ["é", "\U0001f600"], "n": -(2**63), "x": 1e300, "z": -0.0, "s": '"\\\n\x7f'}
        text = '{"b":true,"a":["é","\U0001f600"],"n":-9223372036854775808,"x":1e+300,"z":-0.0,"s":"\\"\\\\\\n\x7f"}'
        assert encode(metadata) == text
        # What other writers of JSON make is read as well.
        assert decode(json.dumps(metadata, indent=1)) == metadata

    @pytest.mark.parametrize("text", ["", "x", "{", '{"a":1', "{} ", " {}", "{}{}", '{"a":}', "\ufeff{}"])
    def test_what_is_not_one_json_value_is_refused(self, text: str) -> None:
        for start, whole in ((0, text), (1, "1" + text)):
            with pytest.raises(ValueError, match=r"JSON|Expecting|expecting"):
                decode(whole, start)

    @pytest.mark.parametrize("text", ["[1]", "1", "null", '"a"'])
    def test_metadata_are_an_object(self, text: str) -> None:
        decode(text)
        with pytest.raises(ValueError, match="not a JSON object"):
            decode_metadata(text)


def test_parts_keep_order_and_bounds_and_a_large_item_stands_alone() -> None:
    sizes = [3, 3, 9, 1, 1, 1, 1, 50, 2]
    parts = list(in_parts(sizes, lambda size: size, most=3, most_bytes=10))
    assert parts == [[3, 3], [9, 1], [1, 1, 1], [50], [2]]
    assert list(in_parts([], len, most_bytes=1)) == []
