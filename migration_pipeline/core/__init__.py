"""What the migration does: nouns, rules and the story of one range, without Dagster or a vendor's library."""
