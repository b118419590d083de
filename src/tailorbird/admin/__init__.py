"""Admin: what is stored, as JSON for people and dashboards; no maths here."""
