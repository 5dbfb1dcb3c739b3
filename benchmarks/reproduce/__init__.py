"""The figures and claims of the papers, a folder each."""
