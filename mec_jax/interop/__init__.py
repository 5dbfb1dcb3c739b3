"""Views of the environments for other ecosystems."""
