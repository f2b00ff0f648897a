"""What training and evaluation share: collections, first stages, rerankers behind one protocol, and their records."""
