"""What `mmjax plan` is made of: pods that aren't there, and how a compiled step is counted."""
