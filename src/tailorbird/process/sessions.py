"""Sessions: visits separated by half an hour without an event, in the events' own time."""

from tailorbird.features.view import session_at
from tailorbird.schema.profile import Profile


def observe(profile: Profile, t: float) -> None:
    """Count an event at `t` in the visitor's session; a late event belongs to the session at hand."""
    if session_at(profile, t) > profile.sessions:
        profile.sessions += 1
        profile.session_started = t
        profile.session_depth = 0
    profile.session_depth += 1
    profile.first_seen = min(profile.first_seen, t)
    profile.last_seen = max(profile.last_seen, t)
