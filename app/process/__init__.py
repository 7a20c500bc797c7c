"""The process itself: its priority, its log lines."""
