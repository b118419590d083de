"""Segments and computed attributes of people: from declared rules and fitted models."""
