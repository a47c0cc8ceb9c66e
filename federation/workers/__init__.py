"""Several processes of one server on one machine: they share the port, and what they learn as replicas do."""
