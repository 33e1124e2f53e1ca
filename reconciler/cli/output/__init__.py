"""What a command shows: rows of status and progress, times, drawing on a terminal.

``status_rows``, ``progress_rows`` and ``time_format`` are pure. ``tables``, ``terminal``, ``live_view`` and
``status_page`` draw with rich; import them inside functions, since rich is slow to load.
"""
