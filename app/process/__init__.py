"""The process itself: its priority, its log lines, and whether it is well."""
