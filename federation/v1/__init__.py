"""Generated from `protos/federation/v1`; never edited."""
