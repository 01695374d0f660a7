"""Real servers on this machine, and a made-up app on them, for the demo and the tests."""
