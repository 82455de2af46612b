"""Quality and speed, each figure beside its bar and its chance level."""
