"""The running control plane of one region: it serves the API, probes its nodes, talks to its peers."""
