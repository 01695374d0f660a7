"""Apps that use this project, to be read and run."""
