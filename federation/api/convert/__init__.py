"""Between messages and values: resources, requests with decisions, and health. Nothing here decides anything."""
