"""Files of a deployment, held against the tools that read them, and played on this machine."""
