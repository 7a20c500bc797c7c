"""The process itself: its memory, its priority, its log lines."""
