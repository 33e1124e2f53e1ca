"""Shared by the tests: fixtures for unit tests, harnesses for real engines, hosts for whole machines."""
