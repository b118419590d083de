"""Who may do what: the three keys, and how a request shows one."""

from enum import IntEnum

from tailorbird.app.config import Keys, key_hash
from tailorbird.app.exchange import Exchange
from tailorbird.errors import ForbiddenError, UnauthorizedError
from tailorbird.hashing import is_same

_REMEMBERED_MAX = 64  # Recognized spellings; there are three keys and few ways to write them.


class Role(IntEnum):
    """What a key may do; each role may do what the lower ones may."""

    NOBODY = 0
    WRITE = 1
    SERVER = 2
    ADMIN = 3


class Gate:
    """Recognizes keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._remembered: dict[str, Role] = {}

    def role(self, exchange: Exchange) -> Role:
        """Return the role of the key that a request carries in its headers or query."""
        key = exchange.credential()
        return Role.NOBODY if key is None else self.role_of(key)

    def role_of(self, key: str) -> Role:
        """Return the role of a key."""
        role = self._remembered.get(key)
        if role is None:
            role = self._recognize(key)
            if role and len(self._remembered) < _REMEMBERED_MAX:
                self._remembered[key] = role
        return role

    def require(self, exchange: Exchange, least: Role) -> Role:
        """Return the request's role.

        Raises:
            UnauthorizedError: It carries no key, or an unknown one.
            ForbiddenError: Its key may not do this.
        """
        role = self.role(exchange)
        if role is Role.NOBODY:
            raise UnauthorizedError("a key is needed, and the one sent (if any) is not known")
        if role < least:
            raise ForbiddenError(
                f"a {role.name.lower()} key may not do this; it needs the {least.name.lower()} key"
            )
        return role

    def _recognize(self, key: str) -> Role:
        keys = self._keys
        # Jitsu's browser client insists on `key:secret`; the first part is the key.
        if is_same(key, keys.write) or is_same(key.partition(":")[0], keys.write):
            return Role.WRITE
        hashed = key_hash(keys.secret, key)
        if is_same(hashed, keys.admin_hash):
            return Role.ADMIN
        return Role.SERVER if is_same(hashed, keys.server_hash) else Role.NOBODY
