"""Deliver: decisions to the world; the native API, OpenFeature's remote protocol, and ready HTML."""
