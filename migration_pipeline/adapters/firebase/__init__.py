"""The app's documents."""
