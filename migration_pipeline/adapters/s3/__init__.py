"""AWS S3."""
