"""The report at the end: one page that stands by itself, and the ledger as Parquet files."""
