"""What an event says of a visitor's surroundings: kind of device, language, where from, local time.

Rough on purpose: a variable that a model or a rule reads, not a fact about a person. Nothing finer than a
region of a locale is taken from where somebody is.
"""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from tailorbird.schema.events import Event, EventContext

_BOT = re.compile(r"bot\b|crawl|spider|slurp|headless|preview", re.IGNORECASE)
_TABLET = re.compile(r"ipad|tablet|kindle|silk|android(?!.*mobile)", re.IGNORECASE)
_MOBILE = re.compile(r"mobi|iphone|ipod|android", re.IGNORECASE)
_SEARCH = re.compile(
    r"(^|\.)(google|bing|duckduckgo|yahoo|yandex|baidu|ecosia|qwant|startpage|kagi)\.", re.IGNORECASE
)
_SOCIAL = re.compile(
    r"(^|\.)(facebook|instagram|tiktok|twitter|x|t|linkedin|pinterest|reddit|youtube|snapchat|threads|mastodon)\.",
    re.IGNORECASE,
)
_MAIL = re.compile(r"(^|\.)(mail|outlook|gmx|webmail)\.|mail\.", re.IGNORECASE)
_PAID = frozenset(
    {"cpc", "ppc", "paid", "paidsearch", "paid_search", "paid_social", "display", "cpm", "ads", "affiliate"}
)
_MEDIA = {"email": "email", "e-mail": "email", "newsletter": "email", "social": "social", "organic": "search"}


def device_of(context: EventContext) -> str | None:
    """Return mobile, tablet, desktop, bot, or what the client itself calls the device; None where unsaid."""
    declared = context.device.type if context.device is not None else None
    if declared:
        return {"ios": "mobile", "android": "mobile", "phone": "mobile"}.get(
            declared.lower(), declared.lower()
        )
    return _device_by_agent(context.user_agent) if context.user_agent else None


@functools.lru_cache(maxsize=4096)
def _device_by_agent(agent: str) -> str:
    for kind, pattern in (("bot", _BOT), ("tablet", _TABLET), ("mobile", _MOBILE)):
        if pattern.search(agent[:1000]):
            return kind
    return "desktop"


def language_of(context: EventContext) -> str | None:
    """Return the language of the locale: `de` of `de-AT`."""
    return re.split(r"[-_]", context.locale)[0].lower()[:8] or None if context.locale else None


def region_of(context: EventContext) -> str | None:
    """Return the region of the locale: `AT` of `de-AT`."""
    parts = re.split(r"[-_]", context.locale) if context.locale else []
    return parts[-1].upper()[:8] if len(parts) > 1 and len(parts[-1]) in _REGION_LENGTHS else None


_REGION_LENGTHS = (2, 3)


def referrer_of(context: EventContext) -> str | None:
    """Return how a visit came about: direct, internal, search, social, email, paid or referral.

    None where unsaid.
    """
    medium = campaign_part(context, "medium")
    if medium is not None:
        medium = medium.lower()
        return "paid" if medium in _PAID else _MEDIA.get(medium, "referral")
    page = context.page
    if page is None:
        return None
    if not page.referrer:
        return "direct"
    return _kind_of_host(_host(page.referrer), _host(page.url or ""))


def _kind_of_host(host: str, own: str) -> str:
    if host and host == own:
        return "internal"
    for kind, pattern in (("search", _SEARCH), ("email", _MAIL), ("social", _SOCIAL)):
        if pattern.search(host):
            return kind
    return "referral"


@functools.lru_cache(maxsize=4096)
def _host(url: str) -> str:
    try:
        return (urlsplit(url[:2000]).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def campaign_part(context: EventContext, part: str) -> str | None:
    """Return a part of `context.campaign`."""
    value = context.campaign.get(part) if context.campaign else None
    return value[:200] if isinstance(value, str) and value else None


def zone_offset(context: EventContext, t: float) -> float | None:
    """Return the seconds by which the visitor's clock was ahead of UTC at `t`; None where no zone is said."""
    name = context.timezone
    if not isinstance(name, str):
        return None
    return _offset(name[:64], int(t // 900) * 900)  # Clocks change at a quarter of an hour.


@functools.lru_cache(maxsize=4096)
def _offset(name: str, t: int) -> float | None:
    try:
        offset = datetime.fromtimestamp(t, UTC).astimezone(ZoneInfo(name)).utcoffset()
    except (ValueError, OSError, KeyError, OverflowError):
        return None
    return None if offset is None else offset.total_seconds()


def lenient_context(values: dict[str, Any]) -> EventContext:
    """Return what a request says of its surroundings; a part of another shape than an event's is left out."""
    known = {}
    for field in msgspec.structs.fields(EventContext):
        if field.encode_name in values:
            try:
                known[field.name] = msgspec.convert(values[field.encode_name], field.type)
            except msgspec.ValidationError:
                continue
    return EventContext(**known)


ZONE = "zone"
"""What local time is read from, beside `SURROUNDINGS`."""

SURROUNDINGS: dict[str, Callable[[EventContext], str | None]] = {
    "device": device_of,
    "language": language_of,
    "region": region_of,
    "referrer": referrer_of,
    "campaign_source": lambda context: campaign_part(context, "source"),
    "campaign_medium": lambda context: campaign_part(context, "medium"),
    "campaign_name": lambda context: campaign_part(context, "name"),
}


def signature(context: EventContext, t: float) -> tuple[Any, ...]:
    """Return all that `SURROUNDINGS` and the zone depend on: equal signatures, equal surroundings."""
    page, device, campaign = context.page, context.device, context.campaign
    return (
        context.user_agent,
        context.locale,
        context.timezone,
        t // 900,
        None if device is None else device.type,
        None if page is None else (page.referrer, _host(page.url or "")),
        None if campaign is None else tuple(map(campaign.get, ("source", "medium", "name"))),
    )


def surroundings_reader(name: str) -> Callable[[Event], str | None]:
    """Return a function from an event to one of `SURROUNDINGS`."""
    read = SURROUNDINGS[name]
    return lambda event: None if event.context is None else read(event.context)
