"""Suppression by itself: refuse a person at the door without erasing, and let them in again.

Only keyed hashes are kept, so nobody can list who is suppressed. All hashes of one person are in one
record of the log: lifting one of them lifts them all.
"""

from tailorbird.live.profiles import suppression_hash
from tailorbird.privacy.erase import Erasure
from tailorbird.privacy.person import suppressed_spellings, to_suppress
from tailorbird.privacy.scan import Breather, in_thread
from tailorbird.schema.records import KINDS, Suppressed, decode
from tailorbird.stores.log import Log

_KIND = KINDS[Suppressed]


async def suppress(erasure: Erasure, name: str) -> int:
    """Refuse the person whom `name` (`type:value`) names from now on; return how many hashes that adds.

    Raises:
        ConflictError: As `person_of`.
        StorageError: The disk refused.
    """
    installation = erasure.installation
    person = erasure.person([name])
    held = await erasure.find(person)
    hashes = to_suppress(installation.world, erasure.secret, person, held.shared)
    if hashes:
        installation.write(Suppressed(installation.clock.now(), hashes))
        await installation.durable()
    return len(hashes)


async def lift(erasure: Erasure, name: str) -> int:
    """Let the person whom `name` named in again; return how many hashes are lifted, 0 where none was.

    Raises:
        StorageError: The disk refused.
    """
    installation = erasure.installation
    kind, _, value = name.partition(":")
    named = {suppression_hash(erasure.secret, each) for each in suppressed_spellings(kind, value)}
    named &= installation.world.suppressed
    if not named:
        return 0
    together = await in_thread(lambda breather: _together(installation.log, named, breather))
    hashes = tuple(sorted(together & installation.world.suppressed))
    installation.write(Suppressed(installation.clock.now(), hashes, is_lifted=True))
    await installation.durable()
    return len(hashes)


def _together(log: Log, named: set[str], breather: Breather) -> set[str]:
    """Return the hashes that were suppressed with one of `named`."""
    found = set(named)
    for record in log.read():
        if record.kind == _KIND:
            suppressed = decode(record.kind, record.payload)
            if isinstance(suppressed, Suppressed) and named.intersection(suppressed.hashes):
                found.update(suppressed.hashes)
        breather.breathe()
    return found
