"""Objectives by labels that come with the batch: of examples, of words, of spans, and numbers."""
