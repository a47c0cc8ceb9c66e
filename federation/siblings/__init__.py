"""Replicas of one region: what each learns, the others know within a second. See README.md."""
