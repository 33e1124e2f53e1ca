"""ASGI middleware and its parts: security checks, authentication, sessions, rate limits, request metrics."""
