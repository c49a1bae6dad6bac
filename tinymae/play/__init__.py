"""The live page: pure functions that answer JSON with JSON, a small server, and the page itself in `static`."""
