"""One sandboxed expression language for eligibility, goals and business rules."""
