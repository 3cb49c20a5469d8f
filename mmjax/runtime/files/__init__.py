"""Writes files atomically and reads them within bounds. Like `mmjax.errors`, every folder may import it."""
