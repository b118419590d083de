"""The variables that every profile has, whatever is declared.

Visits, recency, tenure, orders and their worth.
"""

SCALARS = (
    "sessions",
    "session_depth",
    "session_seconds",
    "recency_seconds",
    "tenure_seconds",
    "value",
    "orders",
    "value_per_order",
)
