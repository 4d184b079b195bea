"""The streaming tracker: all state that SAM 2 needs between frames, bounded and typed."""
