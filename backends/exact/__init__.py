"""The exact oracle: NumPy in memory."""
