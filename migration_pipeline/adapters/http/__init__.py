"""How every store is spoken to over HTTP: one client for bytes, and one answer to which proxy and which CA."""
