"""Tests of the report at the end."""
