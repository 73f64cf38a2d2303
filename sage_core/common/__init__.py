"""L1: the vocabulary. Imports nothing of SAGE above it; stdlib, pluggy, msgspec and platformdirs only."""
