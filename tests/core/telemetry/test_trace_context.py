from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.telemetry.trace_context import Sampler, SpanContext, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
some_ids = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))


@settings(deadline=None)
@given(some_ids, st.booleans())
def test_what_is_written_is_read(ids: tuple[bytes, bytes], sampled: bool) -> None:
    context = SpanContext(*ids, sampled=sampled)
    expected = context if any(ids[0]) and any(ids[1]) else None
    assert parse(context.header.encode()) == expected


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # other flags are not ours
        (f"cc-{TRACE}-{SPAN}-01-later", True),  # later versions may say more
        (f" 00-{TRACE}-{SPAN}-01 ", True),
    ],
)
def test_the_forms_of_the_standard(header: str, sampled: bool) -> None:
    found = parse(header.encode(), b"vendor=1")
    assert found == (bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled, "vendor=1")


@pytest.mark.parametrize(
    "header",
    [
        "", "garbage", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_is_not_well_formed_is_as_if_it_had_not_come(header: str) -> None:
    assert parse(header.encode()) is None


def test_too_long_a_state_is_left_out() -> None:
    found = parse(f"00-{TRACE}-{SPAN}-01".encode(), b"a=" + b"x" * 600)
    assert found is not None
    assert found.state == ""


def test_the_parent_decides_and_without_one_the_share() -> None:
    never, always = Sampler(0.0), Sampler(1.0)
    parent = SpanContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled=True, state="v=1")
    span = never.begin(parent)
    assert span is not None
    assert (span.trace_id, span.sampled, span.state) == (parent.trace_id, True, "v=1")
    assert span.span_id != parent.span_id
    assert always.begin(parent._replace(sampled=False)) is None
    assert never.begin(None) is None
    assert always.begin(None) is not None
    some = sum(Sampler(0.25).begin(None) is not None for _ in range(4_000))
    assert 800 < some < 1_200  # seven standard deviations
