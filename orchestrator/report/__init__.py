"""What a run ends with: a summary that fits a screen, and a page with plots."""
