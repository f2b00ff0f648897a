"""Shared by training and evaluation: collections, first stages, rerankers behind one protocol, and their records."""
