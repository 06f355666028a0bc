"""Questions to a model: a few at once, answered side by side, and long lists in the background."""
