"""Desired state in git: real git, a real daemon, a simulated engine."""
