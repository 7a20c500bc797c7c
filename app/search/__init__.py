"""Searching: the retriever, queries, re-ranking and review, as values that pages and API share."""
