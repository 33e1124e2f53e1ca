"""What every request passes: authentication, sessions, limits, measurement."""
