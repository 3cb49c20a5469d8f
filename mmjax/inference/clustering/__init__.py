"""Fits trees of centroids to features, `mmjax cluster`: hierarchical k-means, level by level, on any mesh."""
