"""Benchmarks. `python -m tests.bench` runs them; nothing here is a test, and no test asserts a speed."""
