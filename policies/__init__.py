"""What we prefer: filters, scorers, pickers, circuits. Pure functions of values."""
