"""open_clip's folders: configurations, weights and preprocessing."""
