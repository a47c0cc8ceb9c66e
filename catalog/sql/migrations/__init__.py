"""The schema's history, one file a step in `versions`, applied by `catalog/sql/schema.py`."""
