"""What lessons show and ask: figures, widgets, exercises, and the lessons as pages."""
