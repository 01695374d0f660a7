"""Moves every user file of a live app from Azure Blob Storage to AWS S3, and every reference to it."""
