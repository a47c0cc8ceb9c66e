"""The command `fairway`: one file per command group, joined in `main.py`.

Nothing here imports grpc, NumPy or SQLAlchemy before a command needs it: help and completion answer at once.
"""
