"""What exists: models, nodes, deployments, regions, and their changes."""
