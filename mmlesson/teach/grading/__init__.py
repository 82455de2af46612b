"""`mmlesson grade FOLDER`: a table of who solved what, from a folder of finished notebooks.

Why neither nbgrader nor otter-grader (both read in November 2026): their graders run hidden tests in a database or in
Docker, want a course folder of their own form, and nbgrader 0.9 and otter 7 declare 18 and 16 dependencies. Our
exercises judge themselves (`check`), a class needs one CSV, and Docker is rarely there. Without Docker, nbgrader and
`otter run` execute a notebook with all rights of the teacher. So these are a few hundred lines, most of them walls.

- `reading.py` reads notebooks that nobody trusts, and finds the verdict on each exercise in their stored outputs.
- `walls.py` closes a process in: no network, no files but those it needs, and these read-only (Linux).
- `inside.py` runs behind the walls: a fresh kernel, cell by cell.
- `running.py` stands outside: it starts the walls, watches time, memory and processes, and ends all of them.
- `table.py` puts it together as a CSV.

`running.PROTECTION` says what this protects against and what not; `mmlesson grade --run` prints it.
"""
