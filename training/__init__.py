"""Making draft components: data that the model writes itself, and training on it."""
