"""One recipe a pocket model, each a resumable command: `mmlesson train clip --minutes 120`."""
