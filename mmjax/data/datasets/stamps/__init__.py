"""The dataset `stamps`: captioned pictures, made to be told apart by their captions alone."""
