"""JSON with halves of characters, which Node writes when it cuts a text within one."""

import json
import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.json_text import read_json

TEXTS = msgspec.json.Decoder(str)
# Whole and half characters, and what only looks like one of them.
PIECES = (
    r"\ud83d",
    r"\uDE00",
    r"\ud83d\ude00",
    r"\u00e9",
    r"\u0000",
    r"\\",
    r"\\ud83d",
    r"\n",
    "ud83d",
    "d83d",
    "a",
    "😀",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_halves_are_left_out_and_everything_else_stays(pieces: list[str]) -> None:
    body = f'"{"".join(pieces)}"'

    assert read_json(TEXTS, body.encode()) == re.sub("[\ud800-\udfff]", "", json.loads(body))


@pytest.mark.parametrize("piece", [rb"\ud83d", rb"\ud83d\ude00", rb"\u00e9", rb"\n", rb"\\", b"\xff", b"a"])
def test_a_text_of_5_mb_with_a_half_in_it_is_read_in_a_fraction_of_a_second(piece: bytes) -> None:
    body = b'"%s"' % (piece * (5_000_000 // len(piece)) + rb"\ud83d")
    began = time.thread_time()

    read_json(TEXTS, body)

    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("piece", [rb"\ud83da", rb"\ud83d\n", b"\\", b"\\u", b"[", b'{"a":', b'"'])
def test_5_mb_that_are_no_text_are_refused_in_a_fraction_of_a_second(piece: bytes) -> None:
    body = piece * (5_000_000 // len(piece))
    began = time.thread_time()

    with pytest.raises(msgspec.DecodeError):
        read_json(TEXTS, body)

    assert time.thread_time() - began < 0.5


def test_thousands_of_texts_that_were_cut_are_read() -> None:
    assert read_json(TEXTS, b'"%s"' % (rb"a\ud83d" * 9_000)) == "a" * 9_000
