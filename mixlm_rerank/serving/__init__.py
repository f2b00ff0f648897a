"""The server: Cohere's rerank contract over HTTP, with token indexes behind it."""
