"""What a command shows: rows of status and progress, times, drawing on a terminal."""
