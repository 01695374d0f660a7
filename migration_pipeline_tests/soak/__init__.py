"""Seeded schedules of a living app, crashes and the real stages, judged by an oracle of its own."""
