"""The dataset `asked_emoji`: questions about pictures of several emoji, whose answers need both."""
