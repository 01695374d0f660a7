"""The ledger, in Postgres."""
