"""A run: its settings, its folder, its log, its evaluations, its network."""
