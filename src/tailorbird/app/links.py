"""What operators do with links: declare, suggest, accept, reject, revoke and restore them.

The doors and the command line share it. Whatever is done is a record of the log; the fold decides what
becomes of it.
"""

import heapq
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tailorbird.app.doors import decode
from tailorbird.app.engine import Engine
from tailorbird.clock import parse_time
from tailorbird.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from tailorbird.limits import LINKS_PER_CALL_MAX
from tailorbird.live.identifiers import Rules, kind_of
from tailorbird.live.profiles import by_identifier, is_suppressed
from tailorbird.live.revocations import Pair, pair_of
from tailorbird.live.suggestions import Suggestion, suggestion_view
from tailorbird.live.world import World
from tailorbird.privacy.identities import check_name
from tailorbird.schema.identity import is_type
from tailorbird.schema.records import LinkDeclared, SuggestionRejected

ERRORS_SHOWN_MAX = 100  # As the event door shows; the others are counted.
_SOURCE_LENGTH_MAX = 100


class LinkRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A link as it is declared: two identifiers (`type:value`), who says so, and how sure they are."""

    identifiers: tuple[str, str]
    source: Annotated[str, Meta(min_length=1, max_length=_SOURCE_LENGTH_MAX)]
    confidence: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    at: str | UnsetType = UNSET
    """When it came to be known, ISO 8601; now where it is left out."""
    needs_review: bool = False
    """Whether it waits for somebody's yes, however sure its source is."""


class LinksBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /admin/v1/links`. Rows are taken one by one: a wrong one does not harm the others."""

    links: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=LINKS_PER_CALL_MAX)]


class Declared(msgspec.Struct):
    """What became of declared links, row by row."""

    linked: int = 0
    """Two identifiers of one person now."""
    suggested: int = 0
    refused: list[tuple[int, Pair]] = []
    """(row, identifiers): two people still; a rule of identity or a revocation stands between them."""
    errors: list[tuple[int, Fault]] = []
    """(row, what is wrong with it)."""


class Links:
    """The links of one installation, for its operators."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- declared and suggested ---------------------------------------------------------------------

    async def declare(self, rows: list[msgspec.Raw]) -> Declared:
        """Log every row that can be read, and return what became of each.

        Raises:
            StorageError: The disk refused.
        """
        done = Declared()
        for index, raw in enumerate(rows):
            try:
                record = self._record(decode(bytes(raw), LinkRow))
            except InvalidInputError as error:
                done.errors += [(index, fault) for fault in error.faults]
                continue
            self._engine.write(record)
            if record.needs_review or record.confidence < self._rules.stated.confidence_min:
                done.suggested += 1
            elif self._is_one(record.identifiers):
                done.linked += 1
            else:
                done.refused.append((index, record.identifiers))
        await self._engine.durable()
        return done

    def suggestions(self, count: int, *, is_rejected: bool = False) -> list[dict[str, Any]]:
        """Return the suggestions with the highest scores, or the rejected ones."""
        found = (entry for entry in self._world.suggestions.scan() if entry[1].is_rejected == is_rejected)
        best = heapq.nsmallest(count, found, key=lambda entry: (-entry[1].score, entry[0]))
        return [self._view(pair, suggestion) for pair, suggestion in best]

    async def settle(self, pair: Pair, *, is_accepted: bool) -> dict[str, Any]:
        """Accept or reject a suggestion; accepted, it is declared.

        Raises:
            NotFoundError: Nothing is suggested of the two.
            ConflictError: It was accepted, but a rule of identity stands between the two.
            StorageError: The disk refused.
        """
        suggestion = self._world.suggestions.get(*pair)
        if suggestion is None:
            raise NotFoundError(f"no link of {_told(pair)} is suggested")
        now = self._engine.clock.now()
        if is_accepted:
            self._engine.write(LinkDeclared(now, now, pair_of(*pair), suggestion.source))
        else:
            self._engine.write(SuggestionRejected(now, pair_of(*pair)))
        await self._engine.durable()
        if is_accepted and not self._is_one(pair):
            raise ConflictError(
                f"{_told(pair)} stay two people: a rule of identity or a revocation forbids it"
            )
        return self.people_of(*pair)

    # --- revoked ------------------------------------------------------------------------------------

    async def revoke(self, pair: Pair) -> None:
        """Take a link back: two identifiers become two people, as if nothing had ever joined them.

        Raises:
            ConflictError: They are not one person's.
            StorageError: The disk refused.
        """
        if not self._world.revocations.is_revoked(*pair):
            if not self._is_one(pair):
                raise ConflictError(f"{_told(pair)} are not linked: they are not one person's")
            await self._engine.revoke_link(*pair, is_lifted=False)

    async def restore(self, pair: Pair) -> None:
        """Let two identifiers be joined again, also by what is in the log already.

        Raises:
            NotFoundError: Their link is not revoked.
            StorageError: The disk refused.
        """
        if not self._world.revocations.is_revoked(*pair):
            raise NotFoundError(f"the link of {_told(pair)} is not revoked")
        await self._engine.revoke_link(*pair, is_lifted=True)

    def revoked(self) -> list[Pair]:
        """Return the pairs whose link is revoked."""
        return sorted(self._world.revocations.pairs())

    def people_of(self, one: str, other: str) -> dict[str, Any]:
        """Return whose two identifiers are, and whether their link is revoked."""
        found = {name: by_identifier(self._world, name) for name in (one, other)}
        return {
            "revoked": self._world.revocations.is_revoked(one, other),
            "profiles": {name: None if profile is None else profile.id for name, profile in found.items()},
        }

    # --- parts --------------------------------------------------------------------------------------

    @property
    def _world(self) -> World:
        """The world as of now: folding again makes another."""
        return self._engine.world

    @property
    def _rules(self) -> Rules:
        return self._engine.world.identity

    def _is_one(self, pair: Pair) -> bool:
        one, other = (by_identifier(self._world, name) for name in pair)
        return one is not None and one is other

    def _record(self, row: LinkRow) -> LinkDeclared:
        """Return the record of a row.

        Raises:
            InvalidInputError: It names nobody, or one identifier twice, or somebody who was erased.
        """
        now = self._engine.clock.now()
        try:
            t = now if row.at is UNSET else parse_time(row.at)
        except (ValueError, OverflowError) as error:
            raise InvalidInputError(Fault("at", "an ISO 8601 time between 1970 and 2100", row.at)) from error
        one, other = (self._checked(f"identifiers[{i}]", name) for i, name in enumerate(row.identifiers))
        if one == other:
            raise InvalidInputError(Fault("identifiers", "two different ones", row.identifiers))
        return LinkDeclared(now, t, pair_of(one, other), row.source, row.confidence, row.needs_review)

    def _checked(self, path: str, name: str) -> str:
        name = check_name(path, name)
        kind, _, value = name.partition(":")
        if not is_type(kind):
            raise InvalidInputError(Fault(path, "a type of small letters, digits and _, none reserved", name))
        if self._rules.blocks(kind, value):
            raise InvalidInputError(Fault(path, "a value that identifies somebody", name))
        if is_suppressed(self._world, self._engine.options.secret, kind, value):
            raise InvalidInputError(Fault(path, "nobody who was erased: suppressed until lifted", name))
        return name

    def _view(self, pair: Pair, suggestion: Suggestion) -> dict[str, Any]:
        profiles = self.people_of(*pair)["profiles"]
        return {"identifiers": pair, **suggestion_view(suggestion), "profiles": profiles}


def declared_view(done: Declared) -> dict[str, Any]:
    """Return what became of declared links, as JSON."""
    wrong = len({index for index, _ in done.errors})
    between = "a rule of identity, a revocation or somebody else's device stands between them"
    refused = [(index, Fault("body", between, list(pair))) for index, pair in done.refused]
    return {
        "linked": done.linked,
        "suggested": done.suggested,
        "refused": len(done.refused),
        "wrong": wrong,
        "errors": [
            {"path": _path(index, fault), "rule": fault.rule, "value": fault.value}
            for index, fault in [*done.errors, *refused][:ERRORS_SHOWN_MAX]
        ],
    }


def _path(index: int, fault: Fault) -> str:
    return f"links[{index}]" if fault.path == "body" else f"links[{index}].{fault.path}"


def checked_pair(one: str, other: str) -> Pair:
    """Return two identifiers in their one spelling.

    Raises:
        InvalidInputError: One is not of the form `type:value`, identifies nobody, or they are the same.
    """
    pair = check_name("identifiers[0]", one), check_name("identifiers[1]", other)
    faults = [
        Fault(
            f"identifiers[{place}]", "what identifies somebody; a profile is named by its identifiers", name
        )
        for place, name in enumerate(pair)
        if kind_of(name) == "profile"
    ]
    if pair[0] == pair[1]:
        faults.append(Fault("identifiers", "two different ones", pair))
    if faults:
        raise InvalidInputError(*faults)
    return pair


def _told(pair: Pair) -> str:
    return " and ".join(repr(name[:100]) for name in pair)
