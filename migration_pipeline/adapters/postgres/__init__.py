"""The app's database."""
