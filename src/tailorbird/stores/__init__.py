"""Ports of everything that is kept, and the adapters beside them, one file a technology."""
