"""The door without its HTTP: what is accepted, what is refused and kept, and what is counted."""

import json

import msgspec
import pytest

from tailorbird.clock import ManualClock
from tailorbird.collect.collector import PATH_TYPES, Collected, Collector, Reject
from tailorbird.errors import InvalidInputError
from tailorbird.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX

NOW = 1_700_000_000.0
GOOD = {"type": "track", "event": "Product Viewed", "userId": "u1", "messageId": "m-1"}
BAD = {"type": "track", "userId": "u1", "messageId": "m-2"}


class Door:
    """A collector, and what it kept as refused."""

    def __init__(self, forgotten: str = "") -> None:
        self.kept: list[Reject] = []
        self.clock = ManualClock(NOW)
        self.collector = Collector(self.clock, self.kept.append, lambda event: event.user_id == forgotten)

    def batch(self, *events: dict, **more) -> Collected:
        body = json.dumps({"batch": events, **more}).encode()
        return self.collector.batch("/v1/batch", body, gpc=False)

    def single(self, path: str, event: dict, *, gpc: bool = False) -> Collected:
        return self.collector.single(path, json.dumps(event).encode(), gpc=gpc)


@pytest.fixture
def door() -> Door:
    return Door()


def test_an_accepted_event_has_its_times_and_its_own_bytes(door):
    event = {**GOOD, "timestamp": "2023-11-14T22:13:10.000Z", "sentAt": "2023-11-14T22:13:15.000Z"}
    (accepted,) = door.single("/v1/track", event, gpc=True).accepted
    logged = accepted.logged
    assert (logged.r, logged.t, logged.m, logged.gpc) == (NOW, NOW - 5.0, "m-1", True)
    assert msgspec.json.decode(logged.e) == event


@pytest.mark.parametrize(("path", "kind"), sorted(PATH_TYPES.items()))
def test_the_path_says_the_call(door, path, kind):
    event = {"userId": "u", "event": "E", "previousId": "p", "groupId": "g", "messageId": "m"}
    (accepted,) = door.single(f"/v1/{path}", event).accepted
    assert accepted.event.type == kind


def test_a_bad_event_in_a_batch_does_not_harm_the_others(door):
    collected = door.batch(GOOD, BAD, {**GOOD, "messageId": "m-3"})
    assert [entry.logged.m for entry in collected.accepted] == ["m-1", "m-3"]
    ((index, fault),) = collected.faults
    assert (index, fault.path) == (1, "event")
    (reject,) = door.kept
    assert (reject.r, reject.door, reject.path) == (NOW, "/v1/batch", "event")
    assert json.loads(reject.body) == BAD
    assert door.collector.rejected == {"event: a track call needs the event's name": 1}


def test_a_batchs_context_and_time_are_each_events(door):
    event = {**GOOD, "timestamp": "2030-01-01T00:00:00Z"}
    collected = door.batch(event, context={"locale": "de"}, sentAt="2030-01-01T00:00:07Z")
    (accepted,) = collected.accepted
    assert accepted.event.context.locale == "de"
    assert accepted.logged.t == NOW - 7.0


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"batch": 7}', b'{"batch": [', b"\xff"])
def test_what_is_no_batch_is_refused_whole_and_kept(door, body):
    with pytest.raises(InvalidInputError):
        door.collector.batch("/v1/batch", body, gpc=False)
    (reject,) = door.kept
    assert reject.body == body.decode("utf-8", "replace")


def test_a_batch_that_is_too_large_is_refused(door):
    with pytest.raises(InvalidInputError, match=f"at most {BATCH_BYTES_MAX} bytes"):
        door.collector.batch("/v1/batch", b" " * (BATCH_BYTES_MAX + 1), gpc=False)
    assert len(door.kept[0].body) == BATCH_BYTES_MAX


def test_too_many_events_are_refused_without_an_error_to_retry(door):
    body = b'{"batch": [' + b"{}," * BATCH_EVENTS_MAX + b"{}]}"
    collected = door.collector.batch("/v1/batch", body, gpc=False)
    assert not collected.accepted
    assert collected.faults[0][1].rule == f"at most {BATCH_EVENTS_MAX} events"
    assert len(door.kept) == 1


def test_an_empty_batch_is_accepted(door):
    assert door.batch() == Collected([], [])


def test_a_forgotten_person_is_refused_and_nothing_of_it_is_kept():
    door = Door(forgotten="u1")
    collected = door.batch(GOOD, {**GOOD, "userId": "u2", "messageId": "m-2"})
    assert [entry.event.user_id for entry in collected.accepted] == ["u2"]
    assert "suppressed" in collected.faults[0][1].rule
    assert not door.kept
    assert sum(door.collector.rejected.values()) == 1


def test_a_wrong_time_is_refused_and_kept(door):
    collected = door.single("/v1/track", {**GOOD, "timestamp": "soon"})
    assert collected.faults[0][1].path == "timestamp"
    assert door.kept[0].value == '"soon"'


def test_refused_events_can_be_taken_in_again_after_a_fix(door):
    door.batch(GOOD, BAD)
    door.single("/v1/t", {"userId": "u1", "messageId": "m-3"})
    kept = list(door.kept)
    mended = [
        msgspec.structs.replace(reject, body=json.dumps({**json.loads(reject.body), "event": "Mended"}))
        for reject in kept
    ]
    again = [door.collector.again(reject) for reject in mended]
    assert [entry.event.event for collected in again for entry in collected.accepted] == ["Mended"] * 2
    assert [bool(door.collector.again(reject).faults) for reject in kept] == [True, True]
    assert door.kept == kept, "what is refused again is not kept a second time"


def test_a_refused_batch_can_be_taken_in_again():
    door = Door()
    door.collector.batch("/v1/batch", b'{"batch": [' + b"{}," * BATCH_EVENTS_MAX + b"{}]}", gpc=False)
    small = msgspec.structs.replace(door.kept[0], body=json.dumps({"batch": [GOOD, GOOD]}))
    assert len(door.collector.again(small).accepted) == 2


def test_kinds_of_refusals_that_are_counted_are_bounded(door):
    for number in range(400):
        door.collector.single(f"/v1/{number}", b'{"x' + b'"' * (number % 3) + str(number).encode(), gpc=False)
        door.single("/v1/track", {**GOOD, f"k{number}": 1, "type": f"t{number}"})
    assert len(door.collector.rejected) <= 200
