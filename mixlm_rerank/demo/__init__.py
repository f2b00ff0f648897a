"""The demo: a corpus that every Python carries, and questions with judged answers."""
