"""The page of `mmjax demo`: search and classification in a browser."""
