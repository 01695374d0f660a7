"""With what: one file per outside system. Vendors' errors are translated here, and go no further."""
