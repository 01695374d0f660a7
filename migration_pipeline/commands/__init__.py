"""What the commands do, a module each; `cli.py` only reads arguments and prints."""
