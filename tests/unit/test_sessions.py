"""Sessions: visits half an hour apart, in the events' own time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.features.view import SESSION_GAP_SECONDS
from tailorbird.process import sessions
from tailorbird.schema.profile import Profile

NOW = 1_700_000_000.0


def observed(*times: float) -> Profile:
    profile = Profile(id="p", assignment_key="k", first_seen=times[0], last_seen=times[0])
    for t in times:
        sessions.observe(profile, t)
    return profile


def test_the_first_event_begins_a_session():
    profile = observed(NOW)
    assert (profile.sessions, profile.session_started, profile.session_depth) == (1, NOW, 1)


def test_a_gap_of_half_an_hour_is_still_the_same_visit_and_more_is_not():
    profile = observed(NOW, NOW + SESSION_GAP_SECONDS, NOW + 2 * SESSION_GAP_SECONDS)
    assert (profile.sessions, profile.session_depth) == (1, 3)
    sessions.observe(profile, profile.last_seen + SESSION_GAP_SECONDS + 1.0)
    assert (profile.sessions, profile.session_depth, profile.session_started) == (2, 1, profile.last_seen)


def test_a_late_event_belongs_to_the_session_at_hand():
    profile = observed(NOW, NOW - 90_000.0)
    assert (profile.sessions, profile.session_depth) == (1, 2)
    assert (profile.first_seen, profile.last_seen) == (NOW - 90_000.0, NOW)


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.sampled_from([0.0, 10.0, SESSION_GAP_SECONDS, SESSION_GAP_SECONDS + 1, 90_000.0])))
def test_sessions_of_ordered_events_are_their_gaps(gaps):
    times = [NOW]
    for gap in gaps:
        times.append(times[-1] + gap)
    profile = observed(*times)
    long = [index for index, gap in enumerate(gaps, 1) if gap > SESSION_GAP_SECONDS]
    assert profile.sessions == 1 + len(long)
    assert profile.session_depth == len(times) - (long[-1] if long else 0)
    assert (profile.first_seen, profile.last_seen) == (times[0], times[-1])
