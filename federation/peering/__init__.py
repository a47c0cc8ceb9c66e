"""Control planes of different regions telling each other what they have; README.md shows the life of a peering."""
