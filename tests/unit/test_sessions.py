"""Sessions: visits half an hour apart, in the events' own time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.features.state import (
    FIRST_SEEN,
    LAST_SEEN,
    SESSION_DEPTH,
    SESSION_GAP_SECONDS,
    SESSION_STARTED,
    SESSIONS,
    State,
    new_state,
    observe_session,
)

NOW = 1_700_000_000.0


def observed(*times: float) -> State:
    state = new_state(times[0])
    for t in times:
        observe_session(state, t)
    return state


def test_the_first_event_begins_a_session():
    state = observed(NOW)
    assert (state[SESSIONS], state[SESSION_STARTED], state[SESSION_DEPTH]) == (1, NOW, 1)


def test_a_gap_of_half_an_hour_is_still_the_same_visit_and_more_is_not():
    state = observed(NOW, NOW + SESSION_GAP_SECONDS, NOW + 2 * SESSION_GAP_SECONDS)
    assert (state[SESSIONS], state[SESSION_DEPTH]) == (1, 3)
    observe_session(state, state[LAST_SEEN] + SESSION_GAP_SECONDS + 1.0)
    assert (state[SESSIONS], state[SESSION_DEPTH], state[SESSION_STARTED]) == (2, 1, state[LAST_SEEN])


def test_a_late_event_belongs_to_the_session_at_hand():
    state = observed(NOW, NOW - 90_000.0)
    assert (state[SESSIONS], state[SESSION_DEPTH]) == (1, 2)
    assert (state[FIRST_SEEN], state[LAST_SEEN]) == (NOW - 90_000.0, NOW)


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.sampled_from([0.0, 10.0, SESSION_GAP_SECONDS, SESSION_GAP_SECONDS + 1, 90_000.0])))
def test_sessions_of_ordered_events_are_their_gaps(gaps):
    times = [NOW]
    for gap in gaps:
        times.append(times[-1] + gap)
    state = observed(*times)
    long = [index for index, gap in enumerate(gaps, 1) if gap > SESSION_GAP_SECONDS]
    assert state[SESSIONS] == 1 + len(long)
    assert state[SESSION_DEPTH] == len(times) - (long[-1] if long else 0)
    assert (state[FIRST_SEEN], state[LAST_SEEN]) == (times[0], times[-1])
