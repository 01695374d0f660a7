"""What changes from a thousand files to millions, and from one partition to five thousand: `make scale`."""
