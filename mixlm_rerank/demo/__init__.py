"""The demo: a corpus that comes with every Python, and questions with judged answers."""
